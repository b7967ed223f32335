"""The tables that a plugin presents at the end of an analysis, as files."""
