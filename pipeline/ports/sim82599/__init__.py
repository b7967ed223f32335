"""A device model of the Intel 82599: registers, descriptors and a wire."""
