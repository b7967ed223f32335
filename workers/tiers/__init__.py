"""The three tiers of plugins: batch classes, compiled Python, C; and loading a plugin by name."""
