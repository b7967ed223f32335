"""A plugin on a capture, without a pipeline, in a child process."""
