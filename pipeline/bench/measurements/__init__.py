"""One module for each measurement of `ringline bench`."""
