"""Builds `ringline.shm._shm`; what the other two builders share is here as well.

setuptools runs a builder as a script with the root of the repository as working directory,
before any of `ringline` can be imported: the others load this file by its path.

Each builder lists two things. DECLARATIONS are headers of plain declarations that the C
compiler and cffi both read, so that a struct or a function is declared in one place.
SOURCES are the C files. All paths are relative to the root of the repository.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cffi import FFI

DECLARATIONS = ["shm/types.h", "shm/shm.h"]
SOURCES = ["shm/shm.c"]

ROOT = Path(__file__).resolve().parent.parent

# Portable by default: a wheel must run on any machine of its architecture. Who builds for one
# machine adds to it with the usual CFLAGS, `CFLAGS=-march=native pip install …`.
OPTIONS = ["-std=gnu11", "-O3", "-g0", "-fvisibility=hidden", "-fno-semantic-interposition"]

# Warnings end a build only for us: a newer compiler must not break a user's installation.
# The exceptions are for what cffi generates.
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]

CONSTANT = re.compile(r"#\s*define\s+\w+\s+-?(0x[0-9a-fA-F]+|[0-9]+)[uUlL]*\s*(/\*.*)?$")


def declarations(headers: Iterable[str]) -> str:
    """The headers as cffi wants them: without what is for the C preprocessor.

    Of the lines that begin with '#', with their continuations, `#define NAME integer` stay.
    """
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

    It knows the types of the builder `includes`, which come from the headers `included`.
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
        extra_compile_args=[*OPTIONS, *WARNINGS, *strict],
    )
    return ffi


ffibuilder = builder("ringline.shm._shm", DECLARATIONS, SOURCES)
