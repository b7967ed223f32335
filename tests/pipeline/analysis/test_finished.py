"""An analysis goes on from what another one finished, and the result is the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.analysis import Result, run
from ringline.pipeline.analysis.finished import Finished
from ringline.shm.errors import EnvironmentLacks, PluginError, UsageError

from ...data import make
from .conftest import PLUGINS, START, analyze, flows, same

Saved = Callable[..., Path]
PIECE = 60_000
PROOF = os.environ.get("RINGLINE_PROOF") == "1"


@pytest.fixture
def given(tmp_path: Path, capture: Saved) -> list[Path]:
    """One capture in several pieces, one with wrong guesses, and two small ones."""
    inner = make.pcap([(START, bytes(60))] * 400)[24:]
    guessed = tmp_path / "inner.pcap"
    guessed.write_bytes(make.pcap([(START + n, bytes([n]) + inner) for n in range(12)]))
    long = tmp_path / "long.pcap"
    long.write_bytes(make.pcap(flows(1, 3000, START + 2_000_000_000)))
    return [guessed, long, capture("a.pcap", b"abc", begin=900), capture("b.pcap", b"de", 901)]


def interrupted_at(packets: int) -> Callable[[int, int, int], None]:
    def interrupt(done: int, everything: int, seen: int) -> None:
        if seen >= packets:
            raise KeyboardInterrupt

    return interrupt


def go(plugin: str, given: list[Path], keep: Path, **more: Any) -> Result:
    return analyze(plugin, *given, piece_bytes=PIECE, keep=str(keep), resume=True, **more)


def names(keep: Path) -> list[str]:
    return sorted(it.name for it in keep.iterdir() if it.name != "about")


@pytest.mark.parametrize("plugin", ["Order", *(["Sizes", "flow_stats"] if PROOF else [])])
def test_what_goes_on_has_the_same_result_as_what_was_never_interrupted(
    plugin: str, given: list[Path], tmp_path: Path
) -> None:
    whole = analyze(plugin, *given, piece_bytes=PIECE)
    keep = tmp_path / "keep"
    for packets in (1, 13, 1000, 2500) if PROOF else (13, 2000):
        result = go(plugin, given, keep, progress=interrupted_at(packets), workers=2)
    last = go(plugin, given, keep)
    assert last.taken > 3
    assert same(last) == same(whole)
    again = go(plugin, given, keep)
    assert (again.taken, again.redone) == (len(given), 0)
    assert same(again) == same(whole)
    assert {it["path"] for it in result.captures} <= {it["path"] for it in whole.captures}


def test_pieces_that_are_finished_are_not_done_again(given: list[Path], tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    stopped = go("Sizes", given[1:2], keep, progress=interrupted_at(1500))
    assert stopped.unfinished == [str(given[1])]
    there = len(names(keep))
    assert there > 1
    result = go("Sizes", given[1:2], keep)
    assert result.taken == there
    assert result.named["seen"] == 3000
    assert len(names(keep)) == 1  # the capture, in the place of its pieces


def test_progress_begins_with_what_is_finished(given: list[Path], tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    go("Sizes", given[:2], keep)
    seen: list[tuple[int, int, int]] = []
    go("Sizes", given, keep, progress=lambda *numbers: seen.append(numbers))
    sizes = [it.stat().st_size for it in given]
    assert seen[0] == (sum(sizes[:2]), sum(sizes), 12 + 3000)
    assert seen[-1][0] <= sum(sizes)
    assert seen[-1][2] <= 12 + 3000 + 5


def test_what_is_damaged_is_done_again(capture: Saved, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    damages: list[Callable[[bytes], bytes]] = [
        lambda data: data[:-1],
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: data[:80],
        lambda data: b"",
        lambda data: data[:90] + bytes([data[90] ^ 1]) + data[91:],
        lambda data: os.urandom(len(data)),
        lambda data: b"x\n[]\n",
        lambda data: data + b"x",
    ]
    paths = [capture(f"{n}.pcap", bytes([n, 1]), begin=n) for n in range(len(damages) + 1)]
    whole = go("Order", paths, keep)
    for name, damage in zip(names(keep), damages, strict=False):
        (keep / name).write_bytes(damage((keep / name).read_bytes()))
    result = go("Order", paths, keep)
    assert (result.taken, same(result)) == (1, same(whole))
    (keep / "about").write_bytes(b"{")
    result = go("Order", paths, keep)
    assert (result.taken, same(result)) == (len(paths), same(whole))


def test_a_capture_that_has_changed_is_done_again(
    given: list[Path], tmp_path: Path, capture: Saved
) -> None:
    keep = tmp_path / "keep"
    go("Order", given, keep)
    capture("b.pcap", b"xyz", begin=901)
    result = go("Order", given, keep)
    assert result.taken == 3
    assert same(result) == same(analyze("Order", *given, piece_bytes=PIECE))


def test_new_captures_are_added_and_others_are_left_out(given: list[Path], tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    go("Order", given[:3], keep)
    result = go("Order", given[1:], keep)
    assert result.taken == 2
    assert same(result) == same(analyze("Order", *given[1:], piece_bytes=PIECE))


def test_another_plugin_or_other_options_are_refused(
    given: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, mine, file = tmp_path / "keep", tmp_path / "mine.py", tmp_path / "file"
    mine.write_text(PLUGINS.read_text() + WITH_FILE)
    file.write_text("one")

    def again(spec: str = f"{mine}:WithFile", **more: Any) -> Result:
        more = {"options": {"file": str(file)}, "workers": 1} | more
        return run(spec, given[2:], piece_bytes=PIECE, keep=str(keep), resume=True, **more)

    again()
    before = names(keep)
    for more, sentence in (
        ({"debug": True}, "its debug was false and is true now; begin again without --resume"),
        ({"to_cut": True}, "its to_cut was false and is true now"),
        ({"options": {"file": "/etc/hosts"}}, r'its options was \{"file": ".*"\} and is \{"file"'),
        ({"spec": f"{mine}:Order", "options": {}}, r"its (options|plugin) was "),
    ):
        with pytest.raises(UsageError, match=sentence):
            again(**more)
    with monkeypatch.context() as patch, pytest.raises(UsageError, match="its ringline was"):
        patch.setattr("ringline.pipeline.analysis.finished.version", lambda: "9.9")
        again()
    with monkeypatch.context() as patch, pytest.raises(UsageError, match="its Python was"):
        patch.setattr("platform.python_version", lambda: "3.99.0")
        again()
    file.write_text("two")
    with pytest.raises(UsageError, match="or a file that its options name, has changed since"):
        again()
    file.write_text("one")
    mine.write_text(mine.read_text() + "\n")
    with pytest.raises(UsageError, match="WithFile, a file beside it that it loads, or a file"):
        again()
    mine.write_text(PLUGINS.read_text() + WITH_FILE)
    assert names(keep) == before
    assert again().taken == 2


def test_a_changed_module_beside_the_plugin_is_refused(given: list[Path], tmp_path: Path) -> None:
    (tmp_path / "finished_beside.py").write_text("STEP = 1\n")
    (tmp_path / "guard.py").write_text(BESIDE)

    def again() -> Result:
        spec, keep = f"{tmp_path}/guard.py:Guard", str(tmp_path / "keep")
        return run(spec, given[2:], keep=keep, resume=True, workers=1)

    assert again().named["seen"] == 5
    assert again().taken == 2
    (tmp_path / "finished_beside.py").write_text("STEP = 20\n")
    with pytest.raises(UsageError, match="a file beside it that it loads, or a file that its"):
        again()


BESIDE = """
import finished_beside

class Guard:
    def setup(self, worker):
        self.seen = worker.counter("seen")

    def process(self, batch):
        for _ in batch:
            self.seen.add(finished_beside.STEP)
"""

WITH_FILE = '''

class WithFile(Order):
    """Has the path of a file."""

    import pathlib

    options = (Option("file", pathlib.Path),)
'''


def test_without_resume_what_is_there_is_replaced(given: list[Path], tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    go("Order", given, keep)
    (keep / "rest.new").touch()
    with pytest.raises(PluginError):  # nothing is finished: all stays
        analyze("Missing", *given, keep=str(keep))
    assert len(names(keep)) == 5
    result = analyze("Sizes", given[3], keep=str(keep))
    assert result.taken == 0
    assert len(names(keep)) == 1


def test_what_was_left_out_is_tried_again(capture: Saved, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    paths = [capture("a.pcap", b"ab"), capture("hurt.pcap", b"\x09", begin=1)]
    for taken in (0, 1):
        result = go("Hurt", paths, keep)
        assert list(result.broken) == [str(paths[1])]
        assert (result.taken, result.counters["packets"]) == (taken, 2)
    capture("hurt.pcap", b"\x08", begin=1)
    result = go("Hurt", paths, keep)
    assert (result.taken, result.counters["packets"], result.broken) == (1, 3, {})


def test_a_folder_in_use_or_out_of_reach_is_refused(given: list[Path], tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    other = Finished(str(keep), {}, resumes=False)
    with pytest.raises(UsageError, match="keep: another analysis writes into this folder"):
        go("Order", given, keep)
    other.close()
    assert not keep.exists()
    (tmp_path / "file").touch()
    before = os.listdir("/proc/self/fd")
    for path in (tmp_path / "file", Path("/proc/none")):
        with pytest.raises(EnvironmentLacks, match="what is finished cannot be kept there: "):
            go("Order", given, path)
    assert os.listdir("/proc/self/fd") == before
