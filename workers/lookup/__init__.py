"""Prefix tables and maps: named state that a plugin fills in Python and looks up per packet."""
