"""What a plugin names, and what it says: values, drop reasons, lines of the log."""
