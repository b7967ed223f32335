"""QEMU 11, which has the card igb, and can use a card that another program serves over vfio-user.

Debian 12 has QEMU 7. `prepare` unpacks Debian 13 with QEMU 11 of its backports into a folder of the
cache, 500 MB in 40 s; it needs root and debootstrap. The program there runs with its own C library.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from .kernel import Missing, cache

SINCE = 11
LIMIT = 900.0  # seconds: for one tool of the set-up
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
RELEASE = "trixie"


def program() -> str:
    """QEMU 11 from RINGLINE_QEMU, the cache or PATH. Raises Missing."""
    known = [os.environ.get("RINGLINE_QEMU"), str(_folder() / "qemu"), "qemu-system-x86_64"]
    for path in (shutil.which(name) for name in known if name):
        if path is not None and version(path) >= SINCE:
            return path
    raise Missing(f"needs QEMU {SINCE}; run as root: python -m tests.guest --prepare-qemu")


def prepare() -> str:
    """The program; downloaded unless it is there. Raises Missing."""
    with contextlib.suppress(Missing):
        return program()
    folder = _folder()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None or not KEYS.exists():
        raise Missing("needs root and the Debian package debootstrap, to get QEMU 11")
    root = folder / "root"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = mirror()
    _tool("debootstrap", "--variant=minbase", f"--keyring={KEYS}", RELEASE, str(root), source)
    backports = f"deb [signed-by={KEYS}] {source} {RELEASE}-backports main\n"
    (root / "etc/apt/sources.list.d/backports.list").write_text(backports)
    install = "apt-get -qq install --yes --no-install-recommends -t trixie-backports"
    line = f"apt-get -qq update && {install} qemu-system-x86 && apt-get clean"
    _tool("chroot", str(root), "sh", "-c", line)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    made = folder / "qemu.new"
    made.write_text(
        "#!/bin/sh\n"
        f"export QEMU_MODULE_DIR={libraries}/qemu\n"
        f"exec {root}/lib64/ld-linux-x86-64.so.2 --library-path {libraries} "
        f"{root}/usr/bin/qemu-system-x86_64 -L {root}/usr/share/qemu -L {root}/usr/share/seabios "
        '"$@"\n'
    )
    made.chmod(0o755)
    made.rename(folder / "qemu")
    return program()


def _folder() -> Path:
    return cache() / "qemu11"


def version(path: str) -> int:
    """The first number of the version of a QEMU; 0 when it says none."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)", said.stdout)
    return int(found[1]) if found else 0


def mirror() -> str:
    """Where this machine gets its Debian packages."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.split() if "security" not in line]
    if not found:
        raise Missing("needs a source of Debian packages that apt knows")
    return found[0]


def _tool(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False
    )
    if done.returncode != 0:
        last = ((done.stderr or done.stdout).strip().splitlines() or ["no message"])[-1]
        raise Missing(f"needs {command[0]} to work, to get QEMU 11: {last}")
