"""Starts a program of this package without Python's site: `start.py process.process`.

`python -I -S` runs this file, and only Python's own modules can be imported at first: with
site a worker would need 38 ms, and site takes 25 of them. The parent process passes the
module search path in RINGLINE_PATH. The folder two levels up is the package `ringline`,
both when it is installed and in an editable installation.
"""

import os
import sys

ringline = type(sys)("ringline")
ringline.__path__ = [os.path.abspath(f"{__file__}/../../..")]
sys.modules["ringline"] = ringline
if "RINGLINE_PATH" in os.environ:
    sys.path[:] = os.environ["RINGLINE_PATH"].split(os.pathsep)
else:
    import site

    site.main()

# Line buffered: if the plugin crashes, nothing flushes what it printed.
sys.stdout = open(1, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115

__import__(f"ringline.workers.{sys.argv[1]}")
sys.modules[f"ringline.workers.{sys.argv[1]}"].main()
