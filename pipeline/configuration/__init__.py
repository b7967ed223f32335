"""From a TOML file to a checked Config, and what a machine must have for it."""
