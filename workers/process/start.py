"""Starts one of this package's programs without Python's site: `start.py process.process`.

Run as a file by `python -I -S`, with nothing but Python's own modules to import: site
takes 25 of the 38 ms that a worker would need. The module search path comes from who
starts it, in RINGLINE_PATH; the folder two above this one is `ringline`, whether installed
or editable.
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

# What a plugin prints is there at once: it may crash then, and nobody flushes for it.
sys.stdout = open(1, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115

__import__(f"ringline.workers.{sys.argv[1]}")
sys.modules[f"ringline.workers.{sys.argv[1]}"].main()
