"""Network interfaces of the kernel: found, described and checked in one place."""
