"""The worker process: its loop, the plugin API, captures and packet headers."""
