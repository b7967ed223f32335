"""An analysis: the same result however it is divided, and what becomes of everything that fails."""

from __future__ import annotations

import concurrent.futures
import errno
import gzip
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringline.pipeline.analysis import run
from ringline.shm.errors import EnvironmentLacks, PluginError, UsageError
from ringline.workers.analysis import children
from ringline.workers.captures.captures import CaptureError, read_capture
from ringline.workers.named.part import Part

from ...data import make
from .conftest import PLUGINS, START, analyze, children_of, flows, same

Saved = Callable[..., Path]
KIB = 1024


def test_counters_histograms_and_state_are_added(capture: Saved, tmp_path: Path) -> None:
    paths = [capture(f"{n}.pcap", bytes(range(40 * n)), begin=n) for n in (1, 2, 3)]
    (tmp_path / "3.pcap.gz").write_bytes(gzip.compress(paths.pop().read_bytes()))
    result = analyze("Sizes", *paths, tmp_path / "3.pcap.gz")
    count = 40 + 80 + 120
    assert result.counters["packets"] == count
    assert result.counters["dropped"] == count
    assert result.wire_bytes == 100 * count
    assert result.named["seen"] == count
    assert result.named["kinds"] == {"small": 0, "large": count}
    assert next(iter(result.named["sizes"])) == 100 * count
    assert result.named["newest"] == float(START + 3_119_000_000)
    assert Part.unpack(result.state).state["of"][100] == count
    assert [(it["path"].rpartition("/")[2], it["packets"]) for it in result.captures] == [
        ("1.pcap", 40),
        ("2.pcap", 80),
        ("3.pcap.gz", 120),
    ]


def test_a_frame_has_its_bytes_on_the_wire(tmp_path: Path) -> None:
    content = bytearray(make.pcap([(START, bytes(60)), (START, bytes(60))]))
    struct.pack_into("<I", content, 24 + 12, 1500)
    path = tmp_path / "cut.pcap"
    path.write_bytes(content)
    result = analyze("Sizes", path)
    assert result.wire_bytes == 1560
    assert Part.unpack(result.state).state["of"][[60, 1500]].tolist() == [1, 1]
    assert "1 of 2 frames were cut when they were captured" in result.remarks[0]


def test_parts_are_merged_in_the_order_of_time(capture: Saved) -> None:
    late = capture("a.pcap", b"ghi", begin=20)
    early = capture("b.pcap", b"abc", begin=0)
    middle = capture("c.pcap", b"def", begin=10)
    result = analyze("Order", late, early, middle, workers=2)
    assert bytes(Part.unpack(result.state).state["order"]) == b"abcdefghi"


def test_tick_is_called_by_the_time_of_the_capture(tmp_path: Path) -> None:
    path = tmp_path / "slow.pcap"
    path.write_bytes(make.pcap([(START + 400_000_000 * n, bytes(60)) for n in range(11)]))
    assert analyze("Order", path).named["ticks"] == 3 + 1  # after 1.2, 2.4 and 3.6 s; at the end


def expected_flows(paths: list[Path]) -> dict[tuple[Any, ...], list[int]]:
    """The flows, counted packet by packet in Python: (packets, bytes) from A to B, and back."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for path in paths:
        capture = read_capture(path)
        for view, wire in zip(capture.frames, capture.original_lengths, strict=True):
            frame = bytes(view)
            at, (kind,) = 14, struct.unpack_from(">H", frame, 12)
            if kind == 0x8100:
                at, (kind,) = 18, struct.unpack_from(">H", frame, 16)
            if kind == 0x0800:
                protocol, whole = (
                    frame[at + 9],
                    not struct.unpack_from(">H", frame, at + 6)[0] & 0x3FFF,
                )
                ends = [frame[at + 12 : at + 16], frame[at + 16 : at + 20]]
                at += 20
            elif kind == 0x86DD:
                protocol, whole = frame[at + 6], True
                ends = [frame[at + 8 : at + 24], frame[at + 24 : at + 40]]
                at += 40
            else:
                continue
            ports = (
                struct.unpack_from(">HH", frame, at) if whole and protocol in (6, 17) else (0, 0)
            )
            pair = list(zip(ends, ports, strict=True))
            way = pair[0] > pair[1]
            flow = found.setdefault((protocol, *sorted(pair)), [0, 0, 0, 0])
            flow[2 * way] += 1
            flow[2 * way + 1] += wire
    return found


def test_any_division_any_order_any_number_of_workers_gives_the_same(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.pcap"
        path.write_bytes(make.pcap(flows(number, 3000, START + 3_000_000_000 * (2 - number))))
        paths.append(path)
    whole = analyze("flow_stats", *paths)
    judged = expected_flows(paths)
    rows = Part.unpack(whole.state).state["flows"]
    assert len(rows) == len(judged)
    assert sorted(rows[:, [6, 8, 7, 9]].tolist()) == sorted(judged.values())
    assert whole.tables["totals"]["first"] == [
        [len(judged), *np.array(list(judged.values())).reshape(-1, 2).sum(axis=0).tolist()]
    ]
    for piece, workers, order in ((64 * KIB, 2, paths[::-1]), (100_001, 1, paths)):
        again = analyze("flow_stats", *order, piece_bytes=piece, workers=workers)
        assert same(again) == same(whole)
        assert again.tasks > 9
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert same(run("flow_stats", paths, executor=pool, piece_bytes=150_000)) == same(whole)


def test_pcapng_is_divided_with_its_interfaces(tmp_path: Path) -> None:
    content = b""
    for _ in range(2):
        resolution = make.interface(options=make.option(9, bytes([9])))
        content += make.section() + make.interface() + resolution
        for number in range(1500):
            frame = bytes([number % 251]) + bytes(60 + number % 64)
            units = (START + 1000 * number) // (1000 if number % 2 else 1)
            if number == 700:
                content += make.interface()
            content += make.enhanced(frame, units, number=1 - number % 2 + 2 * (number == 1401))
    path = tmp_path / "two.pcapng"
    path.write_bytes(content)
    whole, parts = analyze("Sizes", path), analyze("Sizes", path, piece_bytes=20_000, workers=2)
    assert same(parts) == same(whole)
    assert parts.tasks > 10
    assert parts.redone > 0  # ranges behind the second section, or the third interface


def test_a_wrong_guess_is_found_out(tmp_path: Path) -> None:
    inner = make.pcap([(START, bytes(60))] * 400)[24:]
    path = tmp_path / "inner.pcap"
    path.write_bytes(make.pcap([(START + n, bytes([n]) + inner) for n in range(30)]))
    whole, parts = analyze("Order", path), analyze("Order", path, piece_bytes=70_000)
    assert parts.redone > 0
    assert parts.state == whole.state


@pytest.mark.parametrize(
    ("plugin", "sentence"),
    [
        ("Stateful", "keeps the state of and has no merge"),
        ("Tabular", "keeps the table rows and has no merge"),
        ("RaisingMerge", "merge failed: ValueError: these do not fit (.*plugins.py, line"),
        ("WrongMerge", "merge must return a Part, such as its first argument, not NoneType"),
        ("OddMerge", "what its merge or collect returns cannot be kept: give arrays of numbers or"),
        ("OddTable", "and rows (label, numbers) of tables: Object of type int64 is not JSON"),
        (
            "OddCollect",
            "collect must return None, or a dict of NumPy arrays by name, ",
        ),
        ("OneArgument", "merge must take (a, b), with @staticmethod in a class; it takes (a)"),
        ("Missing", "has no 'Missing'"),
    ],
)
def test_a_plugin_that_cannot_be_joined_is_refused(
    capture: Saved, plugin: str, sentence: str
) -> None:
    paths = [capture("a.pcap", b"a"), capture("b.pcap", b"b")]
    with pytest.raises(PluginError) as raised:
        analyze(plugin, *paths)
    for piece in sentence.split(".*"):
        assert piece in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_analysis_needs_a_worker(capture: Saved) -> None:
    with pytest.raises(UsageError, match="workers = 0: an analysis needs at least one worker"):
        analyze("Sizes", capture("a.pcap", b"a"), workers=0)


def test_a_plugin_that_reads_standard_input_gets_no_job(capture: Saved) -> None:
    [(_, _, what)] = analyze("Asks", capture("a.pcap", b"a")).complaints
    assert what.startswith("EOFError")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("a list", "collect must return None, or a dict of NumPy arrays by name, .*, not list"),
        ("lists", "of a fixed size, not 'rows': list"),
        ("objects", "not 'rows': an array of Python objects"),
        ("nothing", r"present failed: KeyError: this part has no state 'rows': it has none \(.*py"),
    ],
)
def test_what_a_plugin_collects_is_looked_at(capture: Saved, what: str, sentence: str) -> None:
    paths = [capture("a.pcap", b"a"), capture("b.pcap", b"b")]
    with pytest.raises(PluginError, match=sentence):
        analyze("WrongCollect", *paths, options={"what": what})


def test_one_capture_and_a_new_folder_are_enough(capture: Saved, tmp_path: Path) -> None:
    """As a first attempt in a notebook: no list of captures, and a folder that is not there."""
    path, out = capture("a.pcap", b"ab\x00"), tmp_path / "new" / "out"
    order = f"{PLUGINS}:Order"
    result = run(order, path, workers=1, out=str(out))
    assert result.tables["order"]["file"] == f"{out}/order.csv"
    assert (out / "order.csv").read_bytes() == b'first,text\n97,"a,b"\n98,"a,b"\n0,"a,b"\n'
    assert repr(result) == (
        f"Result(plugin={order!r}, captures=1, left_out=0, packets=3, named=['ticks'], "
        "tables={'order': 3})"
    )
    with pytest.raises(UsageError, match="typo: there is no such capture"):
        run(order, "typo", out=f"{out}2")
    assert not Path(f"{out}2").exists()
    with pytest.raises(EnvironmentLacks, match=r"a\.pcap/out: cannot be made: Not a directory"):
        run(order, str(path), out=f"{path}/out")


def test_a_packet_on_which_the_plugin_fails_is_named(capture: Saved) -> None:
    capture("a.pcap", b"aa")
    path = capture("b.pcap", bytes(70) + b"\x07", begin=1)
    result = analyze("Raises", path.parent)
    assert result.counters["plugin_errors"] == 7
    [(of, packet, what)] = result.complaints
    assert (of, what.partition(" (")[0]) == (str(path), "ValueError: seven")
    assert 65 <= packet <= 71


def test_a_crash_costs_one_retry(capture: Saved, tmp_path: Path) -> None:
    paths = [capture(f"{n}.pcap", b"a\x09b", begin=n) for n in range(3)]
    once = {"once": str(tmp_path / "once")}
    result = analyze("Hurt", *paths, options=once)
    assert (result.named["seen"], result.broken) == (9, {})


def test_a_plugin_that_always_crashes_costs_its_capture(capture: Saved) -> None:
    paths = [capture(f"{n}.pcap", first, begin=n) for n, first in enumerate([b"ab", b"\x09", b"c"])]
    result = analyze("Hurt", *paths)
    assert result.named["seen"] == 3
    assert list(result.broken) == [str(paths[1])]
    assert result.broken[str(paths[1])].endswith(
        "plugins.py:Hurt crashed (SIGSEGV) before its first packet was done, twice"
    )
    with pytest.raises(PluginError, match="SIGSEGV"):
        analyze("Hurt", *paths, strict=True)


def test_a_plugin_that_hangs_costs_its_capture(capture: Saved) -> None:
    paths = [capture("a.pcap", b"ab"), capture("b.pcap", b"a" * 64 + b"\x09", begin=1)]
    result = analyze("Hurt", *paths, options={"how": "hang"}, silence=0.5)
    assert result.named["seen"] == 2
    assert result.broken[str(paths[1])].endswith(
        "made no progress for 0.5 s after packet 64, twice"
    )


@pytest.mark.parametrize("piece", [64 * KIB, 1 << 30])
def test_a_broken_capture_costs_only_itself(capture: Saved, piece: int) -> None:
    good = [capture("a.pcap", b"ab"), capture("z.pcap", b"yz", begin=50)]
    bad = capture("m.pcap", bytes(3000), begin=1)
    content = bytearray(bad.read_bytes())
    struct.pack_into("<I", content, 24 + 116 * 2000 + 8, 1 << 30)
    bad.write_bytes(content)
    cut = capture("n.pcap", bytes(2000), begin=2)
    cut.write_bytes(cut.read_bytes()[:-5])
    result = analyze("Sizes", *good, bad, cut, piece_bytes=piece)
    for path in (bad, cut):
        with pytest.raises(CaptureError) as raised:
            read_capture(path)
        assert result.broken.pop(str(path)) == str(raised.value)
    assert result.broken == {}
    assert {**same(result), "broken": {}} | {"is_complete": True} == same(analyze("Sizes", *good))
    kept = analyze("Sizes", *good, cut, piece_bytes=piece, to_cut=True)
    assert kept.counters["packets"] == 4 + 1999
    assert "ends after 95 of its 100 bytes; the file is cut short" in kept.remarks[0]
    with pytest.raises(CaptureError, match="packet 2001, at byte"):
        analyze("Sizes", bad, strict=True, piece_bytes=piece)


def test_a_capture_without_usable_packets_is_named(tmp_path: Path, capture: Saved) -> None:
    path = tmp_path / "usb.pcapng"
    path.write_bytes(make.section() + make.interface(link=189) + make.enhanced(bytes(60), 1) * 3)
    result = analyze("Sizes", path, capture("a.pcap", b"a"))
    assert "has link type 189 (USB, Linux)" in result.broken[str(path)]
    assert result.counters["packets"] == 1


def test_a_file_that_changes_meanwhile_is_named(capture: Saved) -> None:
    path = capture("a.pcap", bytes(70) + b"\x09")
    result = analyze("Hurt", path, options={"how": "change", "file": str(path)})
    assert "has changed while it was read" in result.broken[str(path)]


def test_an_interruption_leaves_what_is_finished(capture: Saved) -> None:
    paths = [capture(f"{n}.pcap", b"abc", begin=n) for n in range(6)]
    hurt = capture("hang.pcap", b"\x09", begin=9)

    def interrupt(done: int, everything: int, packets: int) -> None:
        if packets == 18:
            raise KeyboardInterrupt

    result = analyze("Hurt", *paths, hurt, options={"how": "hang"}, progress=interrupt, workers=2)
    assert result.named["seen"] == 18
    assert result.unfinished == [str(hurt)]


def test_an_analysis_that_fails_leaves_another_one_alone(capture: Saved, tmp_path: Path) -> None:
    hang = [capture(f"{n}.pcap", b"\x09", begin=n) for n in range(3)]
    bad = capture("bad.pcap", bytes(9), begin=9)
    content = bytearray(bad.read_bytes())
    struct.pack_into("<I", content, 24 + 116 * 5 + 8, 1 << 30)
    bad.write_bytes(content)
    begun, until = tmp_path / "begun", tmp_path / "until"
    given: dict[str, Any] = {
        "options": {"begun": str(begun), "until": str(until)},
        "silence": 120.0,
    }
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        other = pool.submit(analyze, "Waits", capture("a.pcap", b"abc"), **given)
        try:
            end = time.monotonic() + 60
            while not begun.exists() and time.monotonic() < end:
                time.sleep(0.01)
            assert begun.exists()
            for _ in range(2):
                with pytest.raises(CaptureError, match="packet 6, at byte"):
                    analyze("Hurt", *hang, bad, options={"how": "hang"}, strict=True, workers=4)
        finally:
            until.touch()
        result = other.result(60)
    assert (result.named["seen"], result.unfinished) == (3, [])


FORKS = """
import os, signal
from ringline.workers.analysis import children
of = {"plugin": "drop", "options": {}, "folder": "/", "ports": ["port"], "state_bytes": 4096,
      "debug": False}
with children._pool._lock, children._pool.starter._lock:
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        answer, _ = children.do(of, {"do": "prepare"})
        children.close()
        os._exit(0 if answer["tier"] == "C" and answer["fingerprint"] else 1)
_, status = os.waitpid(pid, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_a_process_that_is_forked_while_a_lock_is_held_has_children_of_its_own() -> None:
    command = [sys.executable, "-c", FORKS]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


class Flaky(concurrent.futures.Executor):
    """An executor that loses the process of every third task."""

    def __init__(self) -> None:
        self._inner = concurrent.futures.ThreadPoolExecutor(1)
        self._count = 0

    def submit(self, function: Any, /, *arguments: Any, **more: Any) -> Any:
        self._count += 1
        if self._count % 3 == 1:
            lost: concurrent.futures.Future[Any] = concurrent.futures.Future()
            lost.set_exception(concurrent.futures.BrokenExecutor("gone"))
            return lost
        return self._inner.submit(function, *arguments, **more)


def test_a_task_that_an_executor_loses_is_done_again(capture: Saved) -> None:
    paths = [capture(f"{n}.pcap", b"abc" * 10, begin=n) for n in range(5)]
    result = run(f"{PLUGINS}:Order", paths, executor=Flaky())
    assert same(result) == same(analyze("Order", *paths))


def test_a_plugin_in_c_runs_as_well(capture: Saved) -> None:
    result = analyze("drop", capture("a.pcap", bytes(200)))
    assert (result.tier, result.counters["dropped"]) == ("C", 200)


def test_a_child_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.pcap"
        path.write_bytes(make.pcap(flows(number, 2000, START + 1_000_000_000 * number)))
        paths.append(path)
    killed: list[int] = []

    def kill(done: int, everything: int, packets: int) -> None:
        found = children_of(os.getpid())
        if found and not killed:
            killed.append(found[0])
            os.kill(found[0], signal.SIGKILL)

    result = analyze("Sizes", *paths, piece_bytes=64 * KIB, workers=2, progress=kill)
    assert killed
    assert same(result) == same(analyze("Sizes", *paths))


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_process_that_cannot_be_started_is_a_sentence(
    capture: Saved, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    start, left = children.subprocess.Popen, [where == "elsewhere"]  # the first one is ours

    def refused(*arguments: Any, **more: Any) -> Any:
        if left.pop() if left else False:
            return start(*arguments, **more)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(children.subprocess, "Popen", refused)
    sentence = "process for the plugin drop cannot be started: Too many open files"
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        executor = threads if where == "elsewhere" else None
        with pytest.raises(EnvironmentLacks, match=sentence) as raised:
            analyze("drop", capture("a.pcap", b"abc"), executor=executor)
    assert ("(on the worker's machine" in str(raised.value)) == (where == "elsewhere")
