"""A packet function that is called as plain Python calculates as the compiled one does."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from ringline.workers.api import DROP, Meta, packet_function
from ringline.workers.testing import run_plugin

FRAME = bytes(range(22)) + bytes([64, 200]) + bytes(1376)  # room for 172 results

NUMBERS = [
    *(
        f"{left} {sign} {right}"
        for sign in ("+", "-", "*", "//", "%", "&", "|", "^")
        for left, right in (("a", "b"), ("b", "a"), ("a", "65"), ("65", "a"), ("a", "meta.length"))
    ),
    *("a << 8", "a >> 2", "a << c", "1 << c", "256 >> c", "a << 60", "(a << 60) + b"),
    *("~a", "-a", "+a", "abs(a)", "~(a + b)", "-(a + b)", "-a + b", "~a & 0xFF"),
    *("(a << 8) | b", "(a << 8) - 70000", "(a - b) - 1", "(a - b) * 2", "a ** 2", "2 ** c"),
    *("min(a, b) - b", "min(a, 5) - 9", "max(a, b) - b - b", "sum(frame[22:24])"),
    *("divmod(a, 7)[0]", "int(a / 7 * 14)", "frame[22:24][0] - frame[22:24][1]"),
    *("field(frame, 22, 1) - b", "len(frame) - b", "(a < b) + 1", "a - 65 < 0", "a - b < 0"),
]
STORES = """
    frame[22] -= 65
    frame[23] += 100
    frame[1] = 300
    frame[2] = ~frame[22]
    frame[3] = frame[22] - frame[23]
    for byte in frame[22:24]:
        frame[4] = frame[4] * 31 - byte
    frame[5:8] = frame[22:25]
    frame[8:10] = 7
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with the functions `numbers` and `stores`; returns its path."""
    lines = ["from ringline.workers.api import *", "", "@packet_function"]
    lines += ["def numbers(frame, meta):", "    a, b, c = frame[22], frame[23], frame[1]"]
    for at, number in zip(itertools.count(24, 8), NUMBERS, strict=False):
        lines.append(f"    set_field(frame, {at}, 8, {number})")
    lines += ["    return meta.port", "", "@packet_function", "def stores(frame, meta):", STORES]
    path = tmp_path_factory.mktemp("plain") / "functions.py"
    path.write_text("\n".join([*lines, "    return meta.port\n"]))
    return str(path)


@pytest.mark.parametrize("name", ["numbers", "stores"])
def test_plain_python_gives_what_compiled_code_gives(functions: str, name: str) -> None:
    from ringline.workers.tiers import loading

    [compiled] = run_plugin(f"{functions}:{name}", [FRAME])
    meta = Meta(FRAME)
    verdict = loading.find(f"{functions}:{name}")(meta.frame, meta)
    assert (compiled.verdict, compiled.error) == (verdict, None)
    plain = meta.frame.tobytes()
    assert plain[:24] == compiled.frame[:24]
    for at, number in zip(itertools.count(24, 8), NUMBERS, strict=False):
        assert plain[at : at + 8] == compiled.frame[at : at + 8], number


@packet_function
def only_ip(frame, meta):  # type: ignore[no-untyped-def]  # as a user writes it
    return meta.port if (frame[12] << 8) | frame[13] == 0x0800 else DROP


@packet_function
def ttl_left(frame, meta):  # type: ignore[no-untyped-def]
    return DROP if frame[22] - 65 < 0 else meta.port


@pytest.mark.parametrize(("function", "verdict"), [(only_ip, 0), (ttl_left, DROP)])
def test_a_byte_does_not_wrap_at_8_bits(function: Callable[..., int], verdict: int) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(8) + b"\x40" + bytes(37)
    meta = Meta(frame)
    assert function(meta.frame, meta) == verdict
    assert run_plugin(function, [frame])[0].verdict == verdict


@pytest.mark.parametrize("name", ["port", "ports", "queue", "rss_hash", "length"])
def test_what_compiled_code_cannot_set_plain_python_cannot_set(name: str) -> None:
    meta = Meta(bytes(60), port=3, ports=4, queue=2, rss_hash=9)
    with pytest.raises(AttributeError, match=f"meta.{name} cannot be set"):
        setattr(meta, name, 1)
    assert (meta.port, meta.ports, meta.queue, meta.rss_hash, meta.length) == (3, 4, 2, 9, 60)
