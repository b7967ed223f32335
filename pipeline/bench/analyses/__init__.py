"""`bench analyze`: the captures, the bare loop in C, and what else counts flows."""
