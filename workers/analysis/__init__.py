"""A plugin over captures or parts of them, in child processes: the tasks of `ringline analyze`."""
