"""The driver for the Intel 82574L."""
