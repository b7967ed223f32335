"""Output for people: live table, summary, progress bar, standard streams."""
