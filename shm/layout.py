"""One number that tells whether two processes mean the same structs.

Made from the name, offset, size and type of every field of every struct that
types.h declares, and from its constants. It stands in each segment's header, so
that a process built from other headers refuses the segment instead of
misreading it.
"""

from __future__ import annotations

from ringline.shm._shm import ffi, lib


def layout_text() -> str:
    """What the hash is made of, one struct or constant per line group."""
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
    """The layout of this build, 64 bits; computed once, in half a millisecond."""
    if not _known:
        _known.append(_hash())
    return _known[0]
