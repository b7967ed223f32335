"""Where the bytes of a capture are: in a file of this machine, or behind a URL."""
