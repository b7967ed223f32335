"""`python -m ringline` is the command `ringline`."""

from __future__ import annotations

import sys

from ringline.pipeline.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
