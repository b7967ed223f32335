"""Measurements, each beside the limit of a bare loop in the same run."""
