"""`ringline init` and `ringline new`: files to begin with."""
