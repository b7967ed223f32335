"""The cache of compiled plugins on disk: with it a worker starts in 0.4 s instead of 2 s.

numba's cache compares only the source file of a function; it does not see a change in a
function that was inlined. So the name of the generated file holds a fingerprint of
everything that was compiled: the user's function, every function and constant that it
uses, the files that define them (the value of an enum, intrinsic or overload does not show
a change), the types of the state, and the versions of Python, numba, llvmlite and NumPy.
A change gives a new file name.

numba executes what it loads, so only this user may be able to write to the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np

from ringline.shm import cache_folder

UNUSED_SECONDS = 30 * 86400.0  # after this time without use an entry is removed


def folder() -> str | None:
    """The cache folder, created if missing; None when it is not writable or not ours alone."""
    return cache_folder.folder("compiled")


def fingerprint(function: Any, *more: Any) -> str:
    """24 hex digits that change when `function`, something that it uses, or `more` changes.
    `more` are texts and classes of the state."""
    digest = hashlib.sha256()
    seen: set[object] = set()
    for value in (sys.version, numba.__version__, llvmlite.__version__, np.__version__, *more):
        _value(digest, value, set(), seen)
        digest.update(b"\0")
    _function(digest, function, seen)
    return digest.hexdigest()[:24]


def _function(digest: Any, function: Any, seen: set[object]) -> None:
    if id(function) in seen:
        return
    seen.add(id(function))
    _file(digest, function.__code__.co_filename, seen)
    # numba imports this module again when it loads the compiled code.
    digest.update(str(function.__module__).encode(errors="replace"))
    names = _code(digest, function.__code__)
    for cell in function.__closure__ or ():
        _value(digest, cell.cell_contents, names, seen)
    _value(digest, function.__defaults__, names, seen)
    for name in sorted(names):
        if name in function.__globals__:
            digest.update(name.encode() + b"=")
            _value(digest, function.__globals__[name], names, seen)


def _file(digest: Any, path: str, seen: set[object]) -> None:
    """Digest the content of a file, if it can be read."""
    if path not in seen:
        seen.add(path)
        with contextlib.suppress(OSError), open(path, "rb") as file:
            digest.update(file.read())


def _code(digest: Any, code: CodeType) -> set[str]:
    """Digest a code object; returns the names that it and its inner functions use."""
    digest.update(code.co_code)
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _code(digest, constant)
        else:
            digest.update(repr(constant).encode())
    digest.update(" ".join(code.co_names + code.co_varnames).encode())
    return names


def _value(digest: Any, value: Any, names: set[str], seen: set[object]) -> None:
    """Digest a global variable as far as numba compiles it in."""
    inner = getattr(value, "py_func", None) or getattr(value, "function", value)
    if isinstance(value, ModuleType):
        digest.update(value.__name__.encode())
        # Another function may use other names of the same module.
        visit = (id(value), frozenset(names))
        if visit in seen or value.__name__.partition(".")[0] in _STABLE:
            return
        seen.add(visit)
        for name in sorted(names & vars(value).keys()):
            _value(digest, vars(value)[name], names, seen)
    elif isinstance(inner, FunctionType):
        _function(digest, inner, seen)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, tuple):
        digest.update(repr(getattr(value, "_fields", "")).encode())
        for part in value:
            _value(digest, part, names, seen)
    elif isinstance(value, _PLAIN):
        digest.update(repr(value).encode())
    else:
        kind = value if isinstance(value, type) else type(value)
        fields = getattr(kind, "_fields", "")
        digest.update(f"{kind.__module__}.{kind.__qualname__}{fields}".encode())
        for where in (kind.__module__, str(getattr(value, "__module__", ""))):
            if where.partition(".")[0] not in _STABLE:
                _file(digest, getattr(sys.modules.get(where), "__file__", None) or "", seen)


_PLAIN = (int, float, complex, str, bytes, type(None), np.generic, np.dtype, numba.types.Type)
_STABLE = frozenset({"numpy", "numba", "math", "builtins", "operator"})


def store(place: str, name: str, text: str) -> str:
    """Write the file `name` into the folder, whole or not at all; returns its path.

    An existing file is not touched: numba loads the compiled code of a generated module
    only while the time of the file is unchanged.
    """
    path = os.path.join(place, name)
    if not os.path.exists(path):
        handle, temporary = tempfile.mkstemp(dir=place, suffix=".new")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
            with contextlib.suppress(FileExistsError):  # another worker was faster
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    return path


def known(place: str, name: str) -> list[str] | None:
    """The lines that `remember` stored for `name`: PLAIN or COUNTED, with " times" if
    the code reads times, then the remarks. None
    when there are none."""
    path = os.path.join(place, f"{name}.remarks")
    try:
        with open(path, encoding="utf-8") as file:
            remarks = file.read().splitlines()
        os.utime(path)
    except OSError:
        return None
    return remarks


def remember(place: str, name: str, remarks: list[str]) -> None:
    """Store `remarks` for `name`, and remove entries that were not used for UNUSED_SECONDS."""
    with contextlib.suppress(OSError):
        store(place, f"{name}.remarks", "\n".join(remarks))
        for entry in list(os.scandir(place)):
            unused = time.time() - entry.stat().st_mtime > UNUSED_SECONDS
            if unused and entry.name.endswith(".remarks"):
                forget(place, entry.name.removesuffix(".remarks"))


def forget(place: str, name: str) -> None:
    """Remove all files of `name` from the folder."""
    for inside in (place, os.path.join(place, "__pycache__")):
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(inside)):
                if entry.name.startswith((f"{name}.", f"{name}_")):
                    os.unlink(entry.path)
