"""Packets of captures by flow: divided into shares on disk, and back in order of time."""
