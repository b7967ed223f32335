"""`ringline init` and `ringline new`: what they write is right, and they overwrite nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.commands.check import check
from ringline.pipeline.commands.starters import new as new_module
from ringline.pipeline.commands.starters.init import TEXT, init
from ringline.pipeline.commands.starters.new import new
from ringline.pipeline.commands.starters.plugins import TIERS
from ringline.pipeline.configuration import schema
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.workers.api import include_directory


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- init -------------------------------------------------------------------------------


def test_check_accepts_what_init_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init"]) == 0
    assert "ringline check ./ringline.toml" in capsys.readouterr().out
    init("edge-2.toml")
    init("My Edge.toml")
    for file, name in (("ringline", "ringline"), ("edge-2", "edge-2"), ("My Edge", "ringline")):
        assert f": all well; instance {name}, ports wan (sim:82599)" in check(f"{file}.toml")


def meaning(text: str) -> Any:
    problems: list[str] = []
    values = tomllib.loads(text)
    found = schema.read(values, Path("/"), problems)
    assert problems == []
    return found


def test_the_commented_values_are_the_defaults() -> None:
    text = TEXT.replace("NAME", "edge")
    with_defaults = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert with_defaults.count("\n# ") < text.count("\n# ") / 2
    assert meaning(with_defaults) == meaning(text)


def keys(values: dict[str, Any], path: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found.add(f"{path}{key}")
        if isinstance(value, dict) and not f"{path}{key}".endswith(("options", "map")):
            found |= keys(value, f"{path}{key}.")
    return found


def test_every_key_is_shown_and_every_example_is_accepted() -> None:
    text = TEXT.replace("NAME", "edge")
    whole = re.sub(r"^#\??? (\w+ = )", r"\1", text, flags=re.MULTILINE)
    paced = re.sub(r"\[port.wan.wire.flows\].*?\n\n", "", whole, flags=re.DOTALL)
    with_rate = re.sub(r"^speed = .*\n", "", paced, flags=re.MULTILINE)
    with_pace = paced.replace('pace = "rate"', 'pace = "captured"')
    with_pace = re.sub(r"^rate_mpps = .*\n", "", with_pace, flags=re.MULTILINE)
    of_replay = r"^(replay|repeat|pace|speed|cut) = .*\n"
    with_flows = re.sub(of_replay, "", whole, flags=re.MULTILINE)
    shown: set[str] = set()
    for text in (with_rate, with_pace, with_flows):
        meaning(text)
        shown |= keys(tomllib.loads(text))
    known = {
        f"{table}.{key}".lstrip(".").replace("port.NAME", "port.wan")
        for table, names in schema._levels().items()
        for key in names
        if not table.startswith("worker.0") and key not in ("0", "NAME")
    }
    assert known - shown == set()


@pytest.mark.parametrize("file", ["edge", "edge.conf", "forward", "toml", ""])
def test_a_configuration_without_its_ending_is_refused(file: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"must end with \.toml, not "):
        init(file)
    assert list(folder.iterdir()) == []


# -- new --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("tier", TIERS)
def test_the_test_of_a_new_plugin_passes_and_the_plugin_runs(tier: str, folder: Path) -> None:
    told = new("my_quota", tier)
    commands = re.findall("^  (.*)", told, re.MULTILINE)
    assert len(commands) == (4 if tier == "c" else 3)
    capture = str(Path(__file__).parents[2] / "data" / "mixed.pcap")
    for command in commands:
        words = command.replace("CAPTURE", capture).replace("python ", f"{sys.executable} ")
        if "ringline run" in words:
            words = words.replace("ringline run", "ringline check").replace("--for 5", "")
        done = subprocess.run(
            words.split(), capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr + done.stdout


def test_the_folder_of_plugin_h_is_the_one_that_plugins_are_told() -> None:
    assert str(new_module.INCLUDE) == include_directory()


def test_the_default_is_a_compiled_plugin(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "guard"]) == 0
    assert capsys.readouterr().out.startswith("wrote guard.py and test_guard.py; next:\n")
    assert "@packet_function" in (folder / "guard.py").read_text()


def test_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_module, "find_spec", lambda name: None)
    assert new("one", "compiled").endswith(
        "\nfirst install what is missing: pip install numba numpy pytest"
    )
    assert new("two", "c").endswith("missing: pip install pytest")


@pytest.mark.parametrize(
    ("name", "tier", "told"),
    [
        ("My-Guard", "batch", "must be a letter a-z, then up to 39 of a-z, 0-9 and _; my_guard w"),
        ("../x", "c", "must be a letter a-z, then up to 39 of a-z, 0-9 and _; x would do"),
        ("7", "c", "must be a letter a-z, then up to 39 of a-z, 0-9 and _"),
        ("a" * 41, "c", "must be a letter a-z, then up to 39"),
        ("class", "batch", "must not be a word of Python"),
        ("double", "c", "must not be a word of C"),
        ("linux", "c", "must not be a word of C"),
        ("memcpy", "c", "must not be memcpy, which may be declared by the headers of C already"),
        ("uint8_t", "c", "must not be uint8_t, which may be declared by the headers of C already"),
        ("none", "batch", "must not be a word of Python"),
        ("range", "compiled", "must not be a word of Python"),
        ("np", "compiled", "must not be np, which is the name of something in it"),
        ("field", "compiled", "must not be field, which is the name of something in it"),
        ("random", "batch", "must not be random, which is a module already: the file would hide"),
        ("numba", "compiled", "must not be numba, which is a module already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    name: str, tier: str, told: str, folder: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        new(name, tier)
    assert str(caught.value).startswith(f"the name of a plugin {told}")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("there", ["guard.py", "test_guard.py"])
def test_nothing_is_overwritten(there: str, folder: Path) -> None:
    (folder / there).write_text("mine")
    (folder / "ringline.toml").symlink_to("nowhere")
    for write in (lambda: new("guard", "batch"), lambda: init("ringline.toml")):
        with pytest.raises(UsageError, match="exists and is not overwritten: choose another name"):
            write()
    assert (folder / there).read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == sorted([there, "ringline.toml"])


def test_a_file_that_cannot_be_written_is_told() -> None:
    with pytest.raises(EnvironmentLacks, match=r"^none/edge.toml cannot be written: No such file"):
        init("none/edge.toml")
    with pytest.raises(EnvironmentLacks, match=r"x\.toml cannot be written: File name too long"):
        init("x" * 300 + ".toml")


def test_the_commands_that_init_tells_are_whole_words(folder: Path) -> None:
    assert init("my edge.toml").endswith("\n  ringline run './my edge.toml'")
    with pytest.raises(UsageError, match=r"must be printable, not 'a\\nb.toml'"):
        init("a\nb.toml")


def test_names_that_the_headers_of_a_plugin_in_c_declare_are_refused() -> None:
    source = '#include "plugin.h"\n'
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    done = subprocess.run(
        [compiler, "-E", "-P", f"-I{new_module.INCLUDE}", "-"],
        check=True,
        capture_output=True,
        text=True,
        input=source,
        timeout=60,
    )
    declared = set(re.findall(r"^extern [^(]*?\b([a-z]\w*) \(", done.stdout, re.MULTILINE))
    assert {"memcpy", "strlen"} <= declared
    for name in declared:
        with pytest.raises(UsageError, match=f"must not be {name}"):
            new_module._check_name(name, "c")
