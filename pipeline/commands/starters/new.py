"""`ringline new`: write a plugin to begin with, and its test."""

from __future__ import annotations

import builtins
import keyword
import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from ringline.pipeline.commands.starters.plugins import written
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.workers.process import launch

NEEDS = {"compiled": ("numba", "numpy"), "batch": ("numpy",), "c": ()}
INCLUDE = Path(launch.__file__).parents[1]  # the folder of plugin.h
# With the names that GNU C adds, and those that every compiler for Linux defines as macros.
WORDS_OF_C = """
    asm auto break case char const continue default do double else enum extern float for goto if
    inline int linux long main register restrict return short signed sizeof static struct switch
    typedef typeof union unix unsigned void volatile while
"""
# What <string.h>, which plugin.h includes, declares; its types end with `_t`.
OF_STRING_H = """
    bcmp bcopy bzero explicit_bzero ffs ffsl ffsll index memccpy memchr memcmp memcpy memmove memset
    rindex stpcpy stpncpy strcasecmp strcasecmp_l strcat strchr strcmp strcoll strcoll_l strcpy
    strcspn strdup strerror strerror_l strerror_r strlen strncasecmp strncasecmp_l strncat strncmp
    strncpy strndup strnlen strpbrk strrchr strsep strsignal strspn strstr strtok strtok_r strxfrm
    strxfrm_l
"""
OF_THE_TEXT = ("field", "np")  # names that the text of a plugin in Python uses


def new(name: str, tier: str) -> str:
    """Write the plugin `name` of the tier `tier` and its test into the current folder; returns what
    to do next, in several lines.

    Raises UsageError when the name cannot be used or a file exists already, EnvironmentLacks when
    a file cannot be written.
    """
    _check_name(name, tier)
    files, what = written(tier, name)
    write_new(files)
    place = f"./{name}.{'so' if tier == 'c' else 'py'}:{what}"
    lines = [f"wrote {' and '.join(files)}; next:"]
    if tier == "c":
        include = shlex.quote(str(INCLUDE))
        lines.append(f"  cc -O2 -shared -fPIC -I{include} {name}.c -o {name}.so")
    lines += [
        f"  ringline run {place} --for 5",
        f"  ringline try {place} CAPTURE",
        f"  python -m pytest test_{name}.py",
    ]
    if missing := [package for package in (*NEEDS[tier], "pytest") if find_spec(package) is None]:
        lines.append(f"first install what is missing: pip install {' '.join(missing)}")
    return "\n".join(lines)


def _check_name(name: str, tier: str) -> None:
    wrong = None
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name):
        wrong = "must be a letter a-z, then up to 39 of a-z, 0-9 and _"
    elif tier == "c" and name in WORDS_OF_C.split():
        wrong = "must not be a word of C"
    elif tier == "c" and (name in OF_STRING_H.split() or name.endswith("_t")):
        wrong = f"must not be {name}, which may be declared by the headers of C already"
    elif tier == "c":
        pass
    elif keyword.iskeyword(name) or keyword.iskeyword(name.capitalize()) or hasattr(builtins, name):
        wrong = "must not be a word of Python"
    elif name in OF_THE_TEXT:
        wrong = f"must not be {name}, which is the name of something in it"
    elif name in sys.stdlib_module_names or PathFinder.find_spec(name) is not None:
        wrong = f"must not be {name}, which is a module already: the file would hide it"
    if wrong:
        near = re.sub("[^a-z0-9_]", "_", name.lower()).strip("_0123456789")[:40]
        hint = f"; {near} would do" if wrong.startswith("must be a letter") and near else ""
        raise UsageError(f"the name of a plugin {wrong}{hint}")


def write_new(files: Mapping[str, str]) -> None:
    """Write the files, by path; none when one of them exists.

    Raises UsageError when one exists, EnvironmentLacks when one cannot be written.
    """
    for path in files:
        if os.path.lexists(path):
            raise UsageError(f"{path} exists and is not overwritten: choose another name")
    for path, text in files.items():
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise UsageError(f"{path} exists and is not overwritten: choose another name") from None
        except OSError as error:
            raise EnvironmentLacks(f"{path} cannot be written: {error.strerror}") from None
