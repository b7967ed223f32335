"""Builds `ringline.shm._shm`. The other builders share `builder`.

setuptools runs a builder as a script in the root of the repository, before `ringline` can be
imported. So the other builders load this file by its path.

Each builder has two lists. DECLARATIONS are headers with plain declarations that the C compiler
and cffi read, so a struct or a function is declared once. SOURCES are the C files. All paths are
relative to the root of the repository.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cffi import FFI

DECLARATIONS = ["shm/types.h", "shm/shm.h"]
SOURCES = ["shm/shm.c"]

ROOT = Path(__file__).resolve().parent.parent

# Portable by default: a wheel must run on every machine of its architecture. To build for one
# machine, set CFLAGS: `CFLAGS=-march=native pip install …`.
OPTIONS = ["-std=gnu11", "-O3", "-g0", "-fvisibility=hidden", "-fno-semantic-interposition"]

# RINGLINE_NO_HINTS=1 leaves out the hints to the caches (shm/cache.h), to measure what they bring.
HINTS = ["-DRL_NO_HINTS"] if os.environ.get("RINGLINE_NO_HINTS") == "1" else []

# RINGLINE_WERROR=1 makes warnings errors. It is off by default: a newer compiler must not break
# a user's installation. The exceptions are for code that cffi generates.
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]

CONSTANT = re.compile(r"#\s*define\s+\w+\s+-?(0x[0-9a-fA-F]+|[0-9]+)[uUlL]*\s*(/\*.*)?$")


def declarations(headers: Iterable[str]) -> str:
    """The text of the headers for cffi, without lines that begin with '#' (and their
    continuations), except `#define NAME integer`."""
    kept = []
    for header in headers:
        text = (ROOT / header).read_text(encoding="utf-8").replace("\\\n", " ")
        kept += [
            line for line in text.splitlines() if not line.startswith("#") or CONSTANT.match(line)
        ]
    return "\n".join(kept)


def builder(
    module: str,
    headers: list[str],
    sources: list[str],
    includes: FFI | None = None,
    included: Iterable[str] = (),
) -> FFI:
    """A cffi builder in API mode for `module`.

    It can use the types of the builder `includes`, which are declared in the headers `included`.
    """
    ffi = FFI()
    if includes is not None:
        ffi.include(includes)
    ffi.cdef(declarations(headers))
    strict = ["-Werror"] if os.environ.get("RINGLINE_WERROR") == "1" else []
    ffi.set_source(
        module,
        "\n".join(f'#include "{header}"' for header in [*included, *headers]),
        sources=sources,
        include_dirs=["."],
        depends=[str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("[spw]*/**/*.h"))],
        extra_compile_args=[*OPTIONS, *HINTS, *WARNINGS, *strict],
    )
    return ffi


ffibuilder = builder("ringline.shm._shm", DECLARATIONS, SOURCES)
