"""ringline: a multiprocess packet pipeline in Python.

Plugins import from `ringline.workers.api`, their tests from `ringline.workers.testing`.
`ringline.__version__` is the version.

The packages in here have folders of their own in the repository (setup.py). A regular package
holds them together, because Python prefers it to a mere folder with the name `ringline`, such as
a clone of the repository in the current folder.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Look the version up when it is asked for: that takes 30 ms."""
        if name != "__version__":
            raise AttributeError(f"module 'ringline' has no attribute {name!r}")
        from ringline.shm.version import version

        return version()
