"""What a capture in pieces says is what it says as a whole: errors with their packets, gauges, and
failures in a piece whose begin was guessed wrong."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.analysis import run
from ringline.shm.errors import PluginError
from ringline.workers.api import include_directory

from ...data import make
from .conftest import START, analyze, same

Saved = Callable[..., Path]
KIB = 1024
WAYS: list[dict[str, Any]] = [
    {},
    {"piece_bytes": 64 * KIB},
    {"piece_bytes": 40_000, "workers": 2},
]
ways = pytest.mark.parametrize("way", WAYS)

COMPILED = """
from ringline.workers.api import DROP, packet_function


def setup(worker):
    return worker.gauge("seldom").array, worker.gauge("never").array


@packet_function(setup=setup)
def plugin(frame, meta, gauges):
    if frame[0] == 7:
        raise ValueError("seven")
    if frame[0] == 8:
        raise TypeError("eight")
    if frame[0] == 5:
        gauges[0][0] = 42
    elif frame[0] == 6:
        gauges[0][0] = 0
    return DROP
"""
IN_C = """
#include "plugin.h"

/* As above; it has no errors but verdicts that are none. */
static inline int64_t judge(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    double *const *gauges = batch->state;
    (void)meta;
    if (frame[0] == 5 || frame[0] == 6)
        gauges[0][0] = frame[0] == 5 ? 42 : 0;
    return frame[0] == 7 ? 99 : frame[0] == 8 ? 98 : RL_VERDICT_DROP;
}
RL_PLUGIN(judging, judge)
"""
DECLARED = """
import ctypes

from ringline.workers.api import native_plugin


def setup(worker):
    return worker.gauge("seldom"), worker.gauge("never")


address = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(FILE), "judging"))
plugin = native_plugin(address, setup=setup)
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], str]:
    """`made("compiled")` and `made("C")`: a plugin with errors and gauges."""

    def make_it(tier: str) -> str:
        text = COMPILED
        if tier == "C":
            source, library = tmp_path / "judging.c", tmp_path / "judging.so"
            source.write_text(IN_C)
            compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
            command = [compiler, "-shared", "-fPIC", "-O2", f"-I{include_directory()}"]
            subprocess.run([*command, str(source), "-o", str(library)], check=True, timeout=60)
            text = f"FILE = {str(library)!r}\n{DECLARED}"
        plugin = tmp_path / f"guard_{tier}.py"
        plugin.write_text(text)
        return f"{plugin}:plugin"

    return make_it


def with_wrong_guesses(path: Path, firsts: bytes, inner: int) -> Path:
    """A capture of long packets, in which there are others that begin with `inner`."""
    frames = make.pcap([(START, bytes([inner]) + bytes(59))] * 400)[24:]
    path.write_bytes(make.pcap([(START + n, bytes([it]) + frames) for n, it in enumerate(firsts)]))
    return path


def judged(firsts: dict[int, int], count: int = 3000) -> bytes:
    """The first bytes of so many packets, of which some are given by their numbers."""
    return bytes(firsts.get(number, 0) for number in range(1, count + 1))


@ways
def test_each_error_of_a_class_is_told_once_with_its_packet(
    capture: Saved, way: dict[str, Any]
) -> None:
    firsts = {900: 7, 1500: 8, 2000: 7, 2400: 9, 2900: 8}
    paths = [capture("a.pcap", judged(firsts)), capture("b.pcap", judged({2700: 7}), begin=9)]
    result = analyze("Fussy", *paths, **way)
    expected = [(paths[0], 900, 7), (paths[0], 1500, 8), (paths[0], 2400, 9), (paths[1], 2700, 7)]
    for (path, number, what), (of, first, kind) in zip(result.complaints, expected, strict=True):
        assert (path, what.partition(" (")[0]) == (str(of), f"ValueError: a {kind}")
        assert first - 64 < number <= first  # the first packet of its batch
    assert "raise ValueError" in result.trace[-1]


@ways
@pytest.mark.parametrize(("tier", "error"), [("compiled", "ValueError: seven"), ("C", "the ans")])
def test_the_first_error_of_a_function_is_told_with_its_packet(
    capture: Saved, made: Callable[[str], str], tier: str, error: str, way: dict[str, Any]
) -> None:
    paths = [capture("a.pcap", judged({2500: 7, 2501: 8, 2900: 8})), capture("b.pcap", b"ab")]
    result = run(made(tier), paths, **({"workers": 1} | way))
    [(path, number, what)] = result.complaints
    assert (path, number, what[: len(error)]) == (str(paths[0]), 2500, error)


def test_an_error_in_a_piece_that_is_done_again_has_its_packet(
    tmp_path: Path, made: Callable[[str], str]
) -> None:
    firsts = bytes(20) + b"\x07" + bytes(9)
    path = with_wrong_guesses(tmp_path / "inner.pcap", firsts, inner=1)
    plugin = made("C")
    whole, parts = run(plugin, [path]), run(plugin, [path], piece_bytes=70_000)
    assert parts.redone > 0
    assert [number for _, number, _ in whole.complaints] == [21]
    assert same(parts) == same(whole)


@pytest.mark.parametrize("tier", ["batch", "compiled", "C"])
def test_a_gauge_is_that_of_the_last_piece_that_has_set_it(
    capture: Saved, made: Callable[[str], str], tier: str
) -> None:
    plugin = None if tier == "batch" else made(tier)
    ways = [*WAYS, {"by": "flow", "shares": 6}]
    for firsts, expected in (({300: 5}, 42), ({300: 5, 1700: 6}, 0), ({900: 6, 1700: 5}, 42)):
        paths = [capture("a.pcap", judged(firsts)), capture("b.pcap", bytes(9), begin=9)]
        for way in ways[: 3 if len(firsts) > 1 else 4]:
            given: dict[str, Any] = {"workers": 1} | way
            result = run(plugin, paths, **given) if plugin else analyze("Seldom", *paths, **given)
            assert result.tier == tier
            assert result.counters["plugin_errors"] == 0
            assert result.named == {"seldom": expected, "never": 0}


@pytest.mark.parametrize(
    ("plugin", "options", "silence"),
    [
        ("Hurt", {"how": "crash"}, 30.0),
        ("Hurt", {"how": "hang"}, 1.0),
        ("Picky", {}, 30.0),
    ],
)
def test_a_plugin_that_fails_on_what_is_no_packet_costs_nothing(
    tmp_path: Path, plugin: str, options: dict[str, Any], silence: float
) -> None:
    path = with_wrong_guesses(tmp_path / "inner.pcap", bytes(10), inner=9)
    given: dict[str, Any] = {"options": options, "silence": silence}
    whole = analyze(plugin, path, **given)
    parts = analyze(plugin, path, **given, piece_bytes=90_000, workers=2, strict=True)
    assert parts.redone > 0
    assert (parts.broken, parts.counters["packets"]) == ({}, 10)
    assert (parts.complaints, parts.state) == ([], whole.state)  # ticks are more


def test_a_plugin_that_fails_in_a_piece_costs_its_capture(capture: Saved) -> None:
    paths = [capture("a.pcap", b"ab"), capture("b.pcap", judged({2500: 9}), begin=9)]
    result = analyze("Hurt", *paths, piece_bytes=64 * KIB, workers=2)
    assert result.named["seen"] == 2
    [(path, why)] = result.broken.items()
    assert path == str(paths[1])
    how, _, number = why.partition(" crashed (SIGSEGV) after packet ")
    assert how.startswith(path)
    assert 2500 - 64 <= int(number.partition(",")[0]) < 2500  # in the capture
    assert number.partition(",")[2] in (" twice", " 3 times")
    with pytest.raises(PluginError, match="collect failed: ValueError: a 9"):
        analyze("Picky", *paths, piece_bytes=64 * KIB)
