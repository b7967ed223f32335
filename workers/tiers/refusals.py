"""Why numba does not compile a packet function, as one sentence for the plugin's author.

numba's error has about thirty lines in the words of its type system, and it names files of numba
too. `reason` finds the innermost line of the user's own files, and says the common mistakes in
the words of the user's source.
"""

from __future__ import annotations

import dis
import os
import re
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from ringline.shm.errors import PluginError
from ringline.workers.tiers.tier import is_library

_NOISE = ("Failed in", "File ", "During", "- ", "There are", "-", "Traceback", "[", "(", "|")
_PLACES = re.compile(r'File "([^"]+)", line (\d+)|(?: at|Raised from) (\S+) \((\d+)\)')
_FLOATS = {"f": ("float32", "float64"), "c": ("complex64", "complex128")}
_CALLABLE = ("builtin_function_or_method", "partial", "type")
COMPARE = (
    "compiled code cannot compare a part of the frame with bytes, a list or another part: compare "
    "numbers, as in field(frame, 12, 2) == 0x0800, or the bytes one by one"
)


def reason(text: str, function: Any) -> str:
    """The sentence for numba's error text about `function`, with file and line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    found = (rule(match) for pattern, rule in _RULES if (match := re.search(pattern, text)))
    what = next(found, None) or _in_the_words_of_numba(text)
    return what + (_place(text) or place_of_name(function, text))


def place(function: Any) -> str:
    """The first line of a function, as the end of a sentence."""
    code = function.__code__
    return f" ({code.co_filename}, line {code.co_firstlineno})"


def place_of_name(function: Any, text: str) -> str:
    """The line where a function uses the name that a NameError is about; else its first line."""
    match = re.search(r"name '(\w+)' is not defined", text)
    name = match[1] if match else None
    for step in dis.get_instructions(function):
        if name and step.argval == name and step.positions is not None and step.positions.lineno:
            return f" ({function.__code__.co_filename}, line {step.positions.lineno})"
    return place(function)


def place_of_return(function: Any) -> str:
    """The line of the return statement if a function has only one; else its first line."""
    lines = {
        step.positions.lineno
        for step in dis.get_instructions(function)
        if step.opname.startswith("RETURN_") and step.positions and step.positions.lineno
    }
    if len(lines) != 1 or None in lines:
        return place(function)
    return f" ({function.__code__.co_filename}, line {lines.pop()})"


def check_environment(spec: str) -> None:
    """Raise PluginError when numba is told not to compile."""
    import numba

    if numba.config.DISABLE_JIT:
        raise PluginError(
            f"plugin {spec} cannot be compiled, because NUMBA_DISABLE_JIT is set: unset it. To "
            "debug a packet function, call it as a plain function: function(meta.frame, meta)"
        )


def unusable(kind: np.dtype[Any]) -> str | None:
    """Why compiled code cannot work on an array of this dtype, or None."""
    if kind.fields is not None:
        parts = ((name, unusable(field[0])) for name, field in kind.fields.items())
        return next((f"its field {name!r}: {why}" for name, why in parts if why), None)
    if kind.subdtype is not None:
        return unusable(kind.subdtype[0])
    if not kind.isnative:
        return f"{kind} has another byte order than this machine: use {kind.newbyteorder('=')}"
    if kind.kind in "fc" and kind.name not in _FLOATS[kind.kind]:
        return f"compiled code does not know {kind}: use {' or '.join(_FLOATS[kind.kind])}"
    if kind.kind == "V":
        return f"{kind} has no fields: use a dtype with fields, or uint8"
    if kind.kind not in "biufcSUmM":
        return f"compiled code does not know {kind}"
    return None


def _place(text: str) -> str:
    """The innermost line of the user's files. numba names the innermost first, and line 1 for
    code that has no line."""
    for file, line, other, number in _PLACES.findall(text):
        path = os.path.abspath(file or other)
        if (line or number) != "1" and os.path.isfile(path) and not is_library(path):
            return f" ({path}, line {line or number})"
    return ""


def _in_the_words_of_numba(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    what = next((line for line in lines if line and not line.startswith(_NOISE)), "")
    call = re.search(r"^ *>>> (.*)", text, re.MULTILINE)
    if what.startswith("No implementation of function") and call:
        what = f"numba has no {call[1]}"
        why = re.search(r"raised a specific error:\s*(?:\w+: )?(.*)", text)
        if why and not why[1].startswith(_NOISE):
            what += f": {why[1]}"
    what = re.sub(r"\.? *Raised from .*", "", what)
    return what.rstrip(" .:")


def _plain_function(name: str) -> str:
    short = name.rpartition(".")[2]
    return (
        f"it calls {name}, which is a plain Python function: put @numba.njit above `def {short}`, "
        "so that it is compiled too"
    )


def _global(match: re.Match[str]) -> str:
    name, kind = match[1], match[2].rpartition(".")[2]
    if kind in ("function", "method"):
        return _plain_function(name)
    if kind == "PacketFunction":
        return (
            f"it uses {name}, which is a packet function: move what both do into a function "
            "below @numba.njit, and call that one"
        )
    if kind in _CALLABLE:
        return f"it uses {name}, which compiled code cannot call"
    return _unreadable(name, kind)


def _unreadable(name: str, kind: str) -> str:
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    return (
        f"it uses {name}, {article} {kind}, which compiled code cannot read: use a number, a tuple "
        "or a NumPy array, or put the values into the state in setup"
    )


def _attribute(match: re.Match[str]) -> str | None:
    name, module = match[1], match[2]
    whole = f"{module}.{name}"
    there = getattr(sys.modules.get(module), name, None)
    if there is None:
        return None
    if isinstance(there, FunctionType) and not is_library(there.__code__.co_filename):
        return _plain_function(whole)
    advice = {
        "time": ": read the clock in tick and put the time into the state",
        "struct": ": field(frame, offset, size) reads a number",
    }
    return f"compiled code cannot use {whole}{advice.get(module, ': numba does not know it')}"


_RULES: tuple[tuple[str, Callable[[re.Match[str]], str | None]], ...] = (
    (
        r"Untyped global name '?([\w.]+)'?:?\s+[Cc]annot determine Numba type of <class '([^']+)'>",
        _global,
    ),
    (
        r"of a reflected (\w+)\(.*assigned to variable '(\w+)'",
        lambda match: _unreadable(match[2], match[1]),
    ),
    (r"Unknown attribute '(\w+)' of type Module\(<module '([\w.]+)'", _attribute),
    (
        r"Unknown attribute 'from_bytes' of type Function",
        lambda match: "compiled code has no int.from_bytes: use field(frame, offset, size)",
    ),
    (
        r">>> bool\(array\(bool, 1d|No conversion from array\(bool, 1d, \w\) to bool"
        r"|>>> (?:eq|ne)\(array\(uint8|>>> contains\(array\(uint8|>>> bytes\(array\(uint8",
        lambda match: COMPARE,
    ),
    (
        r"opcode \(STORE_GLOBAL\)",
        lambda match: (
            "it assigns to a global variable, which compiled code cannot do: use a "
            "Counter or an array of the state"
        ),
    ),
)
