"""The files of a plugin, on their way to a machine that does not have them.

The plugin's file travels, and with it the modules and libraries beside it that were loaded with
it. What is loaded later, and what a plugin reads, does not. A plugin of an installed package
travels by its name alone.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ringline.shm import cache_folder
from ringline.shm.errors import EnvironmentLacks, PluginError, reason_of

BYTES_MAX = 64 << 20  # of all files of a plugin
_UNUSED_SECONDS = 30 * 86400.0  # after this time without use the files are removed


def packed(spec: str, folder: str) -> tuple[dict[str, str], bytes]:
    """The parcel of the plugin `spec`, which this process has loaded: how to load it elsewhere, and
    its files; b"": it travels by its name. Raises PluginError when it has too many bytes.

    The first has the keys `root`, the folder of the files here; and `entry`, what stands for `spec`
    in the folder of the files there.
    """
    how, files = _files_of(spec, folder)
    return how, _content(spec, files) if how else b""


def digest(spec: str, folder: str) -> str:
    """A text that changes with the content of the files that `packed` takes. Raises PluginError
    when one cannot be read."""
    _, files = _files_of(spec, folder)
    found = set()
    for path in files.values():
        try:
            with open(path, "rb") as file:
                found.add(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise PluginError(f"plugin {spec}: {path} cannot be read: {reason_of(error)}") from None
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()[:24]


def _files_of(spec: str, folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """How to load the plugin elsewhere, and the paths of its files by their names there; nothing
    when it travels by its name."""
    place, sign, name = spec.rpartition(":")
    roots = [os.path.abspath(folder)]
    firsts: list[str] = []
    if sign and (place.endswith((".py", ".so")) or "/" in place):
        path = os.path.abspath(os.path.join(folder, os.path.expanduser(place)))
        roots = list(
            dict.fromkeys([os.path.dirname(path), os.path.dirname(os.path.realpath(path))])
        )
        firsts, entry = [path], f"./{os.path.basename(path)}:{name}"
    elif _root_of(place.partition(".")[0]) in roots:
        entry = spec
    else:
        return {}, {}
    files: dict[str, str] = {}
    for root in roots:
        for path in (*firsts, *_neighbours(root)):
            inside = os.path.basename(path) if path in firsts else os.path.relpath(path, root)
            files.setdefault(inside, path)
    return {"root": roots[0], "entry": entry}, files


def _content(spec: str, files: Mapping[str, str]) -> bytes:
    """A line with names and sizes, then the files."""
    data: dict[str, bytes] = {}
    for inside, path in sorted(files.items()):
        try:
            with open(path, "rb") as file:
                data[inside] = file.read()
        except OSError as error:
            raise PluginError(f"plugin {spec}: {path} cannot be read: {reason_of(error)}") from None
    size = sum(map(len, data.values()))
    if size > BYTES_MAX:
        raise PluginError(
            f"plugin {spec} and what it loads from its folder have {size:,} bytes; at most "
            f"{BYTES_MAX:,} travel to an engine: install the plugin on its machines as a package"
        )
    index = json.dumps([[inside, len(of)] for inside, of in data.items()])
    return index.encode() + b"\n" + b"".join(data.values())


def _root_of(module: str) -> str:
    """The folder in which an imported top-level module or package was found; "" if none."""
    found: Any = sys.modules.get(module)
    file: str | None = getattr(found, "__file__", None)
    if file is None:
        paths = list(getattr(found, "__path__", []))
        return os.path.dirname(os.path.abspath(paths[0])) if paths else ""
    folder = os.path.dirname(os.path.abspath(file))
    return os.path.dirname(folder) if hasattr(found, "__path__") else folder


def _neighbours(root: str) -> Iterator[str]:
    """The files of modules that `import` found in `root`, and of libraries that are mapped from
    there."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or name.partition(".")[0] in ("ringline", "__main__"):
            continue
        stem = os.path.join(root, *name.split("."))
        if file.startswith((f"{stem}.", os.path.join(stem, "__init__."))) and os.path.isfile(file):
            yield file
    not_theirs = (sys.prefix, sys.base_prefix, os.path.realpath(f"{__file__}/../../.."))
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths = {line.rstrip("\n").split(maxsplit=5)[5] for line in maps if "/" in line}
    for path in sorted(paths):
        if (
            path.startswith(os.path.join(root, ""))
            and ".so" in os.path.basename(path)
            and not path.startswith(tuple(f"{it}/" for it in not_theirs))
            and "-packages/" not in path
            and os.path.isfile(path)
        ):
            yield path


def unpacked(content: bytes) -> str:
    """The folder with these files: in the cache of this machine, or of this process if there is no
    cache. Raises EnvironmentLacks."""
    digest = hashlib.sha256(content).hexdigest()[:24]
    base = cache_folder.folder("plugins") or _own_folder()
    place = os.path.join(base, digest)
    index, _, rest = content.partition(b"\n")
    files: list[tuple[str, bytes]] = []
    for inside, size in json.loads(index):
        files.append((inside, rest[:size]))
        rest = rest[size:]
    try:
        if not _has(place, files):
            _remove_unused(base)
            _write(base, place, files)
        os.utime(place)
    except OSError as error:
        raise EnvironmentLacks(
            f"{place}: the plugin's files cannot be written: {reason_of(error)}"
        ) from None
    return place


def _has(place: str, files: Sequence[tuple[str, bytes]]) -> bool:
    """Whether all files are there as they should be."""
    for inside, data in files:
        try:
            with open(os.path.join(place, inside), "rb") as file:
                if file.read() != data:
                    return False
        except OSError:
            return False
    return True


def _write(base: str, place: str, files: Sequence[tuple[str, bytes]]) -> None:
    """Put the files there, all at once; another process may do the same."""
    new = tempfile.mkdtemp(prefix=".new-", dir=base)
    try:
        for inside, data in files:
            path = os.path.join(new, inside)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
            if inside.endswith(".so"):
                os.chmod(path, 0o700)
        for _ in range(2):
            try:
                os.rename(new, place)
                return
            except OSError:
                if _has(place, files):
                    return
                shutil.rmtree(place, ignore_errors=True)  # damaged
        raise OSError(0, "another process changes the folder")
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _remove_unused(base: str) -> None:
    """Remove files that nobody used for a month, and what a killed process left."""
    for name in os.listdir(base):
        path = os.path.join(base, name)
        with contextlib.suppress(OSError):
            limit = 3600.0 if name.startswith(".new-") else _UNUSED_SECONDS
            if time.time() - os.stat(path).st_mtime > limit:
                shutil.rmtree(path, ignore_errors=True)


_own: list[str] = []


def _own_folder() -> str:
    """A folder that lasts as long as this process."""
    if not _own:
        _own.append(tempfile.mkdtemp(prefix="ringline-plugins-"))
        atexit.register(shutil.rmtree, _own[0], ignore_errors=True)
    return _own[0]


def in_words(value: Any, place: str, root: str) -> Any:
    """The value, with the folder of the files where they came from in place of that where they
    are, in all its texts."""
    if isinstance(value, str):
        return value.replace(f"{place}/", os.path.join(root, ""))
    if isinstance(value, Mapping):
        return {key: in_words(of, place, root) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [in_words(of, place, root) for of in value]
    return value
