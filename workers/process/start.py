"""Starts a program of this package without Python's site: `start.py process.process`.

`python -I -S` runs this file, and only Python's own modules can be imported at first: with
site a worker would need 38 ms, and site takes 25 of them. The parent process passes the
module search path in RINGLINE_PATH. The folder two levels up is the package `ringline`,
both when it is installed and in an editable installation.

Some packages are found only by a hook that site installs, for instance `pip install --editable`
of many projects. If the parent has such hooks (RINGLINE_HOOKS), site runs after all, but not
before an import finds nothing.
"""

import os
import sys


def attribute(name):  # type: ignore[no-untyped-def]
    """What package/__init__.py does, without its import."""
    if name != "__version__":
        raise AttributeError(f"module 'ringline' has no attribute {name!r}")
    from ringline.shm.version import version

    return version()


ringline = type(sys)("ringline")
ringline.__getattr__ = attribute  # type: ignore[method-assign]
ringline.__path__ = [os.path.abspath(f"{__file__}/../../..")]
sys.modules["ringline"] = ringline


class LateSite:
    """The last finder of the search for a module: runs site, and searches once more."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]
        sys.meta_path.remove(cls)
        import site

        site.main()
        personal = site.getusersitepackages()
        if personal in sys.path:  # -I leaves it out, but the parent has it
            site.addsitedir(personal)
        for finder in list(sys.meta_path):
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None


if "RINGLINE_PATH" in os.environ:
    sys.path[:] = os.environ["RINGLINE_PATH"].split("\n")
    if os.environ.get("RINGLINE_HOOKS"):
        sys.meta_path.append(LateSite)
else:
    import site

    site.main()

# Line buffered: if the plugin crashes, nothing flushes what it printed.
sys.stdout = open(1, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115

__import__(f"ringline.workers.{sys.argv[1]}")
sys.modules[f"ringline.workers.{sys.argv[1]}"].main()
