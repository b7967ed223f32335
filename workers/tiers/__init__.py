"""How a plugin becomes a batch function: batch classes, compiled Python, C."""
