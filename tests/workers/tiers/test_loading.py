"""Finding a plugin by its name, and the messages when there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.shm.errors import PluginError
from ringline.workers._workers import ffi, lib
from ringline.workers.api import native_plugin
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context

PLUGINS = Path(__file__).parents[1] / "plugins"
PluginFile = Callable[..., str]

ALL = """
from ringline.workers.api import *
from ringline.workers._workers import ffi, lib

class Probe:
    options = [Option("limit", int, 3)]
    def process(self, batch): pass

@packet_function
def compiled(frame, meta): return 0

native = native_plugin(ffi.addressof(lib, "rl_drop"))

class inside:
    probe = Probe
def plain(frame, meta): return 0
class Useless: pass
number = 3
"""


def refusal(spec: str, folder: str | None = None) -> str:
    with pytest.raises(PluginError) as caught:
        loading.load(spec, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        ("Probe", "batch"),
        ("compiled", "compiled"),
        ("native", "C"),
        ("inside.probe", "batch"),
    ],
)
def test_the_tier_follows_from_the_object(plugin_file: PluginFile, name: str, tier: str) -> None:
    assert loading.load(f"{plugin_file(ALL)}:{name}").tier == tier


def test_a_module_an_entry_point_and_a_shared_object_are_found(
    compile_c: Callable[[Path], str],
) -> None:
    for spec in (
        "ringline.workers.plugins.forward:forward",
        "forward",
        f"{compile_c(PLUGINS / 'contract.c')}:contract",
    ):
        assert loading.load(spec).tier == "C"


def test_a_file_is_relative_to_the_folder_given_or_the_current_one(
    plugin_file: PluginFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.path.dirname(plugin_file(ALL))
    assert loading.load("./plugin.py:Probe", folder).declared[0].name == "limit"
    assert loading.load("plugin.py:Probe", folder).tier == "batch"
    monkeypatch.chdir(folder)
    assert loading.load("./plugin.py:Probe").tier == "batch"


def test_two_files_with_the_same_name_are_separate_modules(tmp_path: Path) -> None:
    for name, verdict in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        source = f"class P:\n    verdict = {verdict}\n    def process(self, batch): pass\n"
        (tmp_path / name / "p.py").write_text(source)
    a, b = (loading.find(f"{tmp_path}/{name}/p.py:P") for name in "ab")
    assert (a.verdict, b.verdict) == (0, 1)
    assert loading.find(f"{tmp_path}/a/p.py:P") is a


def test_a_file_can_import_from_its_folder(plugin_file: PluginFile, tmp_path: Path) -> None:
    (tmp_path / "beside_the_plugin.py").write_text("limit = 5\n")
    path = plugin_file(
        "from beside_the_plugin import limit\n"
        "class P:\n    x = limit\n    def process(self, batch): pass\n"
    )
    assert loading.find(f"{path}:P").x == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "has no 'nothing'; its plugins are: Probe, compiled, native"),
        ("Prob", "did you mean 'Probe'?"),
        ("plain", "is a plain function: mark it with @packet_function"),
        ("Useless", "the class has no method process(self, batch)"),
        ("number", "must be a class with process(batch), a @packet_function or a native_plugin"),
    ],
)
def test_an_object_that_is_no_plugin_is_refused(
    plugin_file: PluginFile, name: str, words: str
) -> None:
    assert words in refusal(f"{plugin_file(ALL)}:{name}")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = (1,\n", "SyntaxError: '(' was never closed ({path}, line 1)"),
        ("import os\n1 / 0\n", "ZeroDivisionError: division by zero ({path}, line 2)"),
        (
            "def f():\n    import nonsense_xyz\nf()\n",
            "No module named 'nonsense_xyz' ({path}, line 2)",
        ),
        ("raise SystemExit(3)\n", "SystemExit: 3 ({path}, line 1)"),
        ("\0", "source code string cannot contain null bytes"),
    ],
)
def test_an_import_error_is_reported_with_its_line(
    plugin_file: PluginFile, source: str, words: str
) -> None:
    path = plugin_file(source)
    message = refusal(f"{path}:x")
    assert "does not import" in message
    assert words.format(path=path) in message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("./nowhere/at_all.py:x", "cannot be read: No such file or directory"),
        ("nowhere_xyz.at_all:x", "there is no module 'nowhere_xyz' in this environment"),
        ("ringline.workers.nowhere:x", "there is no module 'ringline.workers.nowhere'"),
        ("os:nowhere", "os has no 'nowhere'"),
        ("swich", "rate_limit, router, switch; did you mean 'switch'?"),
        ("nowhere", "has an entry point of this name in the group ringline.plugins"),
        ("bounce.py", "bounce.py is a file: add the name of the object in it, bounce.py:NAME"),
        (
            "./reflect.so",
            "./reflect.so is a file: add the name of the object in it, ./reflect.so:NAME",
        ),
        ("./nowhere.so:x", "cannot open shared object file"),
    ],
)
def test_a_missing_plugin_is_reported(spec: str, words: str) -> None:
    assert words in refusal(spec)


@pytest.mark.parametrize("ending", ["py", "so"])
def test_a_pipe_is_not_opened(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{ending}")  # opening it would block until there is a writer
    assert "is not a regular file" in refusal(f"{tmp_path}/pipe.{ending}:x")


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = f"{tmp_path}/{os.fsdecode(bytes([0xE9]))}.py"  # in Latin-1
    Path(path).write_text("class Probe:\n    def process(self, batch): pass\n")
    assert loading.load(f"{path}:Probe").tier == "batch"


def test_a_missing_symbol_is_reported(compile_c: Callable[[Path], str]) -> None:
    path = compile_c(PLUGINS / "contract.c")
    assert "has no symbol nothing; RL_PLUGIN(nothing, …)" in refusal(f"{path}:nothing")


def test_a_plugin_of_another_version_is_refused() -> None:
    plugin = ffi.new("struct rl_plugin *", {"abi": lib.RL_PLUGIN_ABI + 1, "batch_bytes": 56})
    with pytest.raises(PluginError, match="compile it again"):
        loading.tier_of("old", native_plugin(plugin)).prepare(Context())
    with pytest.raises(PluginError, match="takes the address of a struct rl_plugin"):
        loading.tier_of("wrong", native_plugin("nonsense")).prepare(Context())
    with pytest.raises(PluginError, match="takes the address of a struct rl_plugin"):
        loading.tier_of("null", native_plugin(0)).prepare(Context())
