"""A simulated card for other programs: the 82599 behind the vfio-user protocol."""
