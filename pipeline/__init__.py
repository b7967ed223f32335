"""The driver process, the supervisor, configuration, metrics and the command line."""
