"""The option `--version`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class Version(argparse.Action):
    """`--version`: the version is looked up only when the option is given."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ringline.shm.version import version

        print(f"ringline {version()}")
        parser.exit()
