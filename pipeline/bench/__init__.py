"""`ringline bench`: the speed of each part beside a bare loop on the same machine."""
