"""The loops of the benchmark in C: bare ones, and those that measure single parts of ringline."""
