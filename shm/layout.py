"""A hash of the structs in types.h, to detect processes that were built from other headers.

It covers name, offset, size and type of every field of every struct in types.h, and its
constants (tests/shm/test_layout.py: test_the_hash_covers_every_field_and_constant). Every segment
header contains it, so a process of another build refuses the segment instead of misreading it.
"""

from __future__ import annotations

from ringline.shm._shm import ffi, lib


def layout_text() -> str:
    """The text that is hashed: a line per constant, and some lines per struct."""
    lines = [
        f"{name} {getattr(lib, name)}"
        for name in sorted(dir(lib))
        if name.startswith("RL_") and isinstance(getattr(lib, name), int)
    ]
    for name in sorted(ffi.list_types()[1]):
        struct = ffi.typeof(f"struct {name}")
        lines.append(f"struct {name} {ffi.sizeof(struct)}")
        lines += [f"{field} {it.offset} {it.type.cname}" for field, it in struct.fields]
    return "\n".join(lines)


def _hash() -> int:
    text = layout_text().encode()
    number: int = lib.rl_hash(text, len(text))
    return number


_known: list[int] = []


def layout_hash() -> int:
    """The layout hash of this build, 64 bits. The first call takes half a millisecond."""
    if not _known:
        _known.append(_hash())
    return _known[0]
