"""A newer kernel for guests: the newest of Debian 13's backports.

It is unpacked as that of this Debian is, which needs no root. apt gets the list of the
backports in a folder of its own, so nothing changes for this machine.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from .kernel import PACKAGE, Kernel, Missing, cache, keep, locked, newest, tool
from .newer_qemu import KEYS, RELEASE, mirror

SUITE = f"{RELEASE}-backports"


def kernel() -> Kernel:
    """The newer kernel in the cache. Raises Missing."""
    how = "run: python -m tests.guest --prepare --newer-kernel"
    return newest(_folder(), f"needs a kernel of {SUITE} for guests; {how}")


def prepare() -> Kernel:
    """Download and unpack the newer kernel unless there is one. Raises Missing."""
    _folder().mkdir(parents=True, exist_ok=True)
    with locked():
        with contextlib.suppress(Missing):
            return kernel()
        with tempfile.TemporaryDirectory(dir=cache()) as name:
            folder = Path(name)
            options = _own_lists(folder)
            tool("apt-get", *options, "-qq", "update")
            asked = tool("apt-cache", *options, "depends", PACKAGE)
            found = re.search(r"Depends: linux-image-(\d\S+)", asked)
            if found is None:
                raise Missing(f"needs the package {PACKAGE} of {SUITE}, which apt does not know")
            wanted = [f"linux-{part}-{found[1]}" for part in ("binary", "modules")]
            tool("apt-get", *options, "-qq", "download", *wanted, cwd=folder)
            keep(list(folder.glob("*.deb")), found[1], _folder())
    return kernel()


def _folder() -> Path:
    return cache() / "backports"


def _own_lists(folder: Path) -> list[str]:
    """Options with which apt knows the backports only, and writes to `folder` only."""
    source = folder / "sources.list"
    source.write_text(f"deb [signed-by={KEYS}] {mirror()} {SUITE} main\n")
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    given = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
    }
    return [word for key, value in given.items() for word in ("-o", f"{key}={value}")]
