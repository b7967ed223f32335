"""Runs a plugin without a pipeline: on a capture, in a dry run, or in a user's tests."""
