"""What ringline changes in how numba uses LLVM."""
