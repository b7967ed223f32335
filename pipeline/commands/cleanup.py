"""`ringline cleanup`: stop and remove what a killed instance left, without starting another one.

The next start of the instance does the same. Until then, a card that the killed driver could not
stop still writes into memory that nobody else can use.
"""

from __future__ import annotations

import os
from pathlib import Path

from ringline.pipeline.configuration.forms import check_name
from ringline.pipeline.configuration.toml import read_file
from ringline.pipeline.ports.interfaces import notes
from ringline.pipeline.ports.pci import sysfs
from ringline.pipeline.telemetry import status_socket
from ringline.shm.errors import ConfigurationError
from ringline.shm.segments import remove_stale


def cleanup(what: str) -> str:
    """Clean up after the instance `what`; says what was done. `what` is its name, or the path of
    its configuration: a path ends with .toml, has a `/`, or is an existing file.

    Only the key `name` of the file is read: other mistakes in it do not matter here. Raises
    ConfigurationError for a wrong file or name, EnvironmentLacks when the instance runs or one of
    its cards cannot be stopped: then its memory stays.
    """
    if what.endswith(".toml") or "/" in what or os.path.isfile(what):
        name = _name_in(what)
        where = f"{what}: "
    elif wrong := check_name(what):
        raise ConfigurationError(f"there is no such file, and the name of an instance {wrong}")
    else:
        name = what
        where = ""
    done: list[str] = []

    def stop(address: str) -> None:
        left_alone = sysfs.stop_dma(address)
        done.append(left_alone or f"DMA of PCI device {address} was stopped")

    done += notes.restore_left(name)
    removed = remove_stale(name, stop)
    if removed:
        files = "1 file" if len(removed) == 1 else f"{len(removed)} files"
        done.append(f"{files} in shared memory removed")
    done += [f"{path} removed" for path in status_socket.remove_dead(name)]
    return f"{where}instance {name}: {'; '.join(done) or 'nothing was left'}"


def _name_in(path: str) -> str:
    """The name of the instance that the configuration at `path` describes."""
    values, _ = read_file(Path(path))
    name = values.get("name", "ringline")
    if not isinstance(name, str) or check_name(name):
        wrong = check_name(name) if isinstance(name, str) else "must be a string"
        raise ConfigurationError(f"{path}: name: {wrong}")
    return name
