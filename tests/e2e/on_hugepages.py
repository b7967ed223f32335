"""Runs an instance on hugepages, kills its supervisor, and starts the instance again.

Usage: unshare --mount on_hugepages.py FOLDER NAME. Mounts a hugetlbfs at FOLDER, and
prints as JSON the files in it and the processes left at each step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TIMEOUT = 60.0
CONFIG = """
name = "{name}"
[memory]
hugepages = "require"
[port.wan]
device = "sim:82599"
wire = {{ flows = {{ count = 64 }} }}
[metrics]
listen = "off"
"""


def main(folder: str, name: str) -> None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "hugetlbfs":  # unmounts it in this namespace only
            subprocess.run(["umount", "--lazy", line.split()[1]], check=True, timeout=10)
    subprocess.run(
        ["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], check=True, timeout=10
    )
    config = Path(folder).with_suffix(".toml")
    config.write_text(CONFIG.format(name=name))
    first = subprocess.Popen(["ringline", "run", str(config)], stdout=2)
    end = time.monotonic() + TIMEOUT
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    while len(pids := children.read_text().split()) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    during = sorted(os.listdir(folder))
    first.kill()
    first.wait()
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    second = subprocess.run(
        ["ringline", "run", str(config), "--for", "0.2"], stdout=2, timeout=TIMEOUT, check=False
    )
    seen = {
        "during": during,
        "children": [pid for pid in pids if os.path.exists(f"/proc/{pid}")],
        "code": second.returncode,
        "after": sorted(os.listdir(folder)),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
