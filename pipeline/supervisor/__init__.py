"""Starts the driver and the workers, watches them, replaces them, ends them."""
