"""Whether compiled code names an attribute or a function: itself, or a function that it uses.

The answer may be yes without need, for another object's attribute of the same name. It is never no
when numba's own functions alone lie between: `getattr(meta, "time")` counts, too.
"""

from __future__ import annotations

from types import CodeType, FunctionType, ModuleType
from typing import Any

_LIBRARIES = frozenset({"numba", "numpy", "math", "builtins", "operator", "llvmlite"})


def mentions(function: Any, name: str) -> bool:
    """Whether `name` is a name or a string in the code of `function`, in that of its inner
    functions, or in that of a function which these reach through a global variable, a closure, a
    default value or a module; or the name of such a function, which may be imported under another
    one."""
    return _search(function, name, set())


def _search(function: FunctionType, name: str, seen: set[int]) -> bool:
    if id(function) in seen:
        return False
    seen.add(id(function))
    names = _names(function.__code__)
    if name in names:
        return True
    values = [cell.cell_contents for cell in function.__closure__ or ()]
    values += function.__defaults__ or ()
    values += [function.__globals__[each] for each in names & function.__globals__.keys()]
    return any(_value(value, names, name, seen) for value in values)


def _value(value: Any, names: set[str], name: str, seen: set[int]) -> bool:
    if isinstance(value, tuple):
        return any(_value(part, names, name, seen) for part in value)
    if isinstance(value, ModuleType):
        if value.__name__.partition(".")[0] in _LIBRARIES:
            return False
        there = [vars(value)[each] for each in names & vars(value).keys()]
        return any(_value(part, names, name, seen) for part in there)
    inner = getattr(value, "py_func", None) or getattr(value, "function", value)
    if not isinstance(inner, FunctionType):
        return False
    if inner.__name__ == name:
        return True
    return inner.__module__.partition(".")[0] not in _LIBRARIES and _search(inner, name, seen)


def _names(code: CodeType) -> set[str]:
    """The names in a code object and in those inside it, and the strings among its constants."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
        elif isinstance(constant, str):
            names.add(constant)
    return names
