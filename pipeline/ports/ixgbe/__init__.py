"""The driver for the Intel 82599."""
