"""The supervisor and everything it needs to start, watch, replace and end its children."""
