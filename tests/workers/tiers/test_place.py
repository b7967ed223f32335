"""The place of an error is the plugin's: its file, its line, its traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.shm.errors import PluginError
from ringline.workers.testing import run_plugin
from ringline.workers.tiers.tier import sentence, trace, where

PluginFile = Callable[..., str]

LIBRARY = """
import ipaddress

class Judge:
    def process(self, batch):
        for packet in batch:
            ipaddress.ip_address("0a.00.00.01")
"""


def raised(source: str, file: str) -> BaseException:
    """The exception that the code raises as the file `file`."""
    names: dict[str, object] = {}
    exec(compile(source, file, "exec"), names)
    try:
        names["run"]()  # type: ignore[operator]
    except Exception as error:
        walk = error.__traceback__
        return error.with_traceback(walk.tb_next if walk else None)  # without this function
    raise AssertionError


def test_the_place_is_in_the_plugin_not_in_a_library(plugin_file: PluginFile) -> None:
    path = plugin_file(LIBRARY)
    [result] = run_plugin(f"{path}:Judge", [bytes(60)])
    assert "does not appear to be an IPv4" in (result.error or "")
    assert (result.error or "").endswith(f"({path}, line 7)")


def test_the_innermost_of_the_user_s_own_files_is_named(tmp_path: Path) -> None:
    helper = tmp_path / "own_helper_file.py"
    helper.write_text("import json\ndef read():\n    json.loads('{')\n")
    sys.path.insert(0, str(tmp_path))
    try:
        error = raised("def run():\n    import own_helper_file\n    own_helper_file.read()", "p.py")
    finally:
        sys.path.remove(str(tmp_path))
    assert where(error) == f" ({helper}, line 3)"


def test_an_installed_plugin_has_its_own_place_too(tmp_path: Path) -> None:
    """All its frames are among the libraries: its own package counts, not the one it calls."""
    site = tmp_path / "lib/python3/site-packages"
    source = "def run():\n    import json\n\n    json.loads('{')"
    assert where(raised(source, f"{site}/my_plugin/rules.py")) == (
        f" ({site}/my_plugin/rules.py, line 4)"
    )


def test_the_last_lines_of_the_traceback_are_the_plugin_s(plugin_file: PluginFile) -> None:
    path = plugin_file("def run():\n    import json\n    json.loads('{')\n")
    error = raised(Path(path).read_text(), path)
    lines = trace(error)[: 2 * 5]
    at = next(number for number, line in enumerate(lines) if path in line)
    assert lines[at : at + 2] == [f'  File "{path}", line 3, in run', "    json.loads('{')"]
    assert "json/decoder.py" in lines[-2]


def test_what_ringline_refuses_in_setup_has_the_plugin_s_line(plugin_file: PluginFile) -> None:
    source = (
        "class Judge:\n    def setup(self, worker):\n        {}\n    def process(self, b): ...\n"
    )
    for name, ask, words in (
        ("counter.py", "worker.counter('a b')", "'a b' cannot name a counter"),
        ("port.py", "worker.ports['lan']", "KeyError: there is no port 'lan'; the ports are: wan"),
        (
            "option.py",
            "worker.options['x']",
            "KeyError: there is no option 'x'; the options are: n",
        ),
        ("table.py", "worker.table('t', 'l', ['v'], 4096)", "at most 272 such rows are exported"),
    ):
        path = plugin_file(source.format(ask), name)
        with pytest.raises(PluginError) as caught:
            run_plugin(f"{path}:Judge", [], ports=["wan"])
        assert words in str(caught.value)
        assert str(caught.value).endswith(f"({path}, line 3)")
    assert "--ports" in sentence(_lookup({"wan": 0}))


def _lookup(ports: dict[str, int]) -> KeyError:
    from ringline.workers.worker import Worker, private_slot

    worker = Worker(private_slot(1 << 16), queue=0, ports=list(ports), options={})
    try:
        worker.ports["lan"]
    except KeyError as error:
        return error
    raise AssertionError


def test_code_in_a_string_has_the_line_that_runs_it() -> None:
    error = raised("def run():\n    x = 1\n    eval('x +')", "p.py")
    assert sentence(error) == "SyntaxError: invalid syntax (p.py, line 3)"


FAILS = """
class Odd(Exception):
    def __str__(self):
        return self.nothing

def run():
    raise Odd
"""


def test_an_exception_without_a_text_has_a_sentence(plugin_file: PluginFile) -> None:
    error = raised(FAILS, "p.py")
    words = "Odd: its text cannot be shown: its __str__ raised AttributeError"
    assert sentence(error) == f"{words} (p.py, line 7)"
    class_ = "class Judge:\n    def process(self, batch):\n        run()\n"
    path = plugin_file(FAILS + class_)
    [result] = run_plugin(f"{path}:Judge", [bytes(60)])
    assert result.error == f"{words} ({path}, line 7)"


EXITS = {
    "class Judge:\n    def __init__(self):\n        raise SystemExit(7)\n": "Judge() failed",
    "class Judge:\n    def setup(self, worker):\n        raise SystemExit(7)\n": "setup failed",
}


@pytest.mark.parametrize("source", EXITS)
def test_an_exit_before_the_first_packet_has_a_sentence(
    plugin_file: PluginFile, source: str
) -> None:
    path = plugin_file(source + "    def process(self, batch): ...\n")
    with pytest.raises(PluginError) as caught:
        run_plugin(f"{path}:Judge", [])
    assert str(caught.value).endswith(f"{EXITS[source]}: SystemExit: 7 ({path}, line 3)")


def test_a_text_that_cannot_be_made_in_any_way_has_a_sentence() -> None:
    error = raised(FAILS.replace("return self.nothing", "raise KeyboardInterrupt"), "p.py")
    assert sentence(error).startswith("Odd: its text cannot be shown: its __str__ raised Keyboard")
