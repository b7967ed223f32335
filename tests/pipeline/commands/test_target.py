"""What `ringline run` and `ringline check` take for a plugin, and what for a configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.commands import cli, target
from ringline.pipeline.commands.arguments.target import arguments_of
from ringline.pipeline.configuration import builtin
from ringline.pipeline.configuration.builtin import NO_ARGUMENTS, Arguments
from ringline.pipeline.ports.interfaces import interface
from ringline.shm.errors import UsageError
from ringline.workers.captures.captures import write_capture
from ringline.workers.tiers import loading

MIXED = Path(__file__).parents[2] / "data" / "mixed.pcap"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "plugin", ["forward", "mac_swap", "package.module:object", "./a.py:f", "../x/b.so:symbol"]
)
def test_a_plugin_is_known_by_its_colon_or_as_an_entry_point(plugin: str, folder: Path) -> None:
    (folder / "forward").touch()
    assert target.names_a_plugin(plugin)


@pytest.mark.parametrize("file", ["none.toml", "a:b.toml", "edge", "folder", "none/edge", "a:b:c"])
def test_a_configuration_is_known_by_its_ending_or_because_it_is_there(
    file: str, folder: Path
) -> None:
    (folder / "edge").touch()
    (folder / "a:b:c").touch()
    (folder / "folder").mkdir()
    assert not target.names_a_plugin(file)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("./a.py", "./a.py is a file: add the name of the plugin in it, ./a.py:NAME"),
        ("a.so", "a.so is a file: add the name of the plugin in it, a.so:NAME"),
        ("in.pcap", "in.pcap is a capture: write PLUGIN --replay in.pcap"),
        ("forwrd", '"forwrd" is neither a configuration (FILE.toml) nor a plugin'),
        ("forwrd", '; did you mean "forward"?'),
        ("edge", "; did you mean edge.toml?"),
        ("xdp:eth0", "xdp:eth0 is a device and no plugin: write PLUGIN --device xdp:eth0"),
        ("pci:0000:03:00.0", "write PLUGIN --device pci:0000:03:00.0"),
        ("a:b:c", "the name of a plugin must be package.module:object"),
        ("", '"" is neither a configuration (FILE.toml) nor a plugin'),
    ],
)
def test_what_is_neither_is_told(what: str, told: str, folder: Path) -> None:
    write_capture(folder / "in.pcap", [bytes(60)])
    (folder / "edge.toml").touch()
    with pytest.raises(UsageError) as caught:
        target.names_a_plugin(what)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_installed_plugins_are_those_that_a_worker_finds() -> None:
    assert target.GROUP == loading.GROUP
    assert "forward" in target.plugins()


EVERY = Arguments(
    "forward",
    [("map", {"wan": "wan"})],
    [str(MIXED)],
    ["out.pcap"],
    3,
    "edge",
    ["wan"],
    True,
    "1 MiB",
    ["wan=sim:82599"],
    "captured",
    2.0,
    3,
)


def test_the_arguments_make_a_configuration(folder: Path) -> None:
    found = target.examined("drop", dataclasses.replace(EVERY, plugin=None))
    assert found.problems == []
    assert found.file is None
    (port,) = found.config.ports
    assert port.wire is not None
    assert (port.device, port.queues) == ("sim:82599", 3)
    assert (port.wire.flows, port.wire.replay) == (None, str(MIXED))
    assert port.wire.record == str(folder / "out.pcap")
    assert port.wire.cut == "play"
    assert (port.wire.pace, port.wire.speed, port.wire.repeat) == ("captured", 2.0, 3)
    assert [worker.plugin for worker in found.config.workers] == ["drop"] * 3
    assert found.config.workers[0].options == {"map": {"wan": "wan"}}
    assert found.config.name == "edge"
    assert found.config.folder == str(folder)


def test_without_arguments_it_is_the_builtin_configuration() -> None:
    assert target.examined(None, NO_ARGUMENTS).config == builtin.builtin()


def test_the_queues_that_are_given_are_not_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "free_shared_memory", lambda: 0)
    assert target.examined("drop", Arguments(queues=7)).config.queues == 7
    assert target.examined("drop", Arguments()).config.queues == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"queues": 0}, "--queues: must be an integer from 1 to 16, not 0"),
        ({"queues": 17}, "--queues: must be an integer from 1 to 16, not 17"),
        ({"state": 9}, "--state: must be a number of bytes from 65536 to 68719476736, such as"),
        ({"name": "A b"}, '--name: must be 1 to 32 characters from a-z, 0-9 and -, not "A b"'),
        ({"replay": ["none.pcap"]}, "--replay: FOLDER/none.pcap: there is no such capture file"),
        ({"replay": ["folder"]}, "--replay: FOLDER/folder: is a directory; name a capture file in"),
        (
            {"replay": ["-"]},
            "--replay: - is a stream of this command, which the card cannot use: na",
        ),
        ({"replay": [""]}, "--replay: must be the path of a capture file"),
        (
            {"record": ["-"]},
            "--record: - is a stream of this command, which the card cannot use: na",
        ),
        ({"record": ["/dev/fd/3"]}, "--record: /dev/fd/3 is a stream of this command"),
        ({"record": ["folder"]}, "--record: FOLDER/folder is a folder; name a file in it"),
        ({"record": ["none/x"]}, "--record: there is no folder FOLDER/none"),
        ({"record": ["notes"]}, "--record: FOLDER/notes exists and is not a capture that ringline"),
        ({"options": [("a", 1), ("a", 2)]}, 'option "a" is given twice with -o'),
        ({"options": [("a", float("nan"))]}, "-o.a: must be a finite number, not nan"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(
    wrong: dict[str, Any], told: str, folder: Path
) -> None:
    (folder / "folder").mkdir()
    (folder / "notes").write_text("not a capture, and too long for a header")
    (problem,) = target.examined("forward", Arguments(**wrong)).problems
    assert problem.startswith(told.replace("FOLDER", str(folder)))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"replay": ["wan=a.pcap", "lan=b.pcap"]}, {"wan": "a.pcap", "lan": "b.pcap"}),
        ({"replay": ["lan=a.pcap"]}, {"lan": "a.pcap"}),
        ({"replay": ["a.pcap"], "record": ["lan=o"]}, {"wan": "a.pcap", "lan": None}),
        ({"replay": ["a.pcap"], "ports": ["in", "out"]}, {"in": "a.pcap", "out": None}),
        ({"replay": ["x=y.pcap"]}, {"wan": "x=y.pcap"}),
        ({"replay": ["./x=y.pcap"]}, {"wan": "x=y.pcap"}),
    ],
)
def test_each_port_that_is_named_has_its_capture(
    given: dict[str, Any], wanted: dict[str, str | None], folder: Path
) -> None:
    for name in ("a.pcap", "b.pcap", "x=y.pcap"):
        write_capture(folder / name, [bytes(60)])
    found = target.examined("forward", Arguments(**given))
    assert found.problems == []
    replayed = {port.name: port.wire and port.wire.replay for port in found.config.ports}
    paths = {name: path and str(folder / path) for name, path in wanted.items()}
    assert replayed == paths
    assert list(replayed) == list(paths)


def test_flows_arrive_at_every_port_and_each_port_has_its_recording(folder: Path) -> None:
    given = Arguments(ports=["wan", "lan"], record=["lan=b", "wan=a"], queues=2)
    ports = target.examined("forward", given).config.ports
    assert [(port.name, port.queues) for port in ports] == [("wan", 2), ("lan", 2)]
    wires = [port.wire for port in ports if port.wire is not None]
    assert [wire.record for wire in wires] == [str(folder / "a"), str(folder / "b")]
    assert all(wire.flows is not None for wire in wires)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {"replay": ["wan=in.pcap", "in.pcap"]},
            "--replay: in.pcap has no port; with several files name the port of each, as in "
            "--replay wan=a.pcap --replay lan=b.pcap",
        ),
        (
            {"replay": ["wan=in.pcap", "wan=b"]},
            "--replay: port wan has two files, in.pcap and b: merge them first: "
            "mergecap -w NEW in.pcap b",
        ),
        (
            {"record": ["wan=a", "wan=b"]},
            "--record: port wan has two files, a and b: name one",
        ),
        (
            {"replay": ["wan=in.pcap"], "ports": ["lan"]},
            "--replay: wan=in.pcap: --ports names no port wan; add it there",
        ),
        (
            {"ports": ["wan", "lan"], "record": ["o"]},
            "--record: o has no port, and there are several: --record wan=o or --record lan=o",
        ),
        (
            {"replay": ["lan=in.pcap"], "record": ["wan=in.pcap"]},
            "--record: FOLDER/in.pcap is the capture that is replayed; record to another file",
        ),
        ({"ports": ["a", "b"], "queues": 17}, "--queues: must be an integer from 1 to 16, not 17"),
        ({"repeat": 3}, "--repeat: has no effect without --replay; add it or remove --repeat"),
        (
            {"replay": ["in.pcap"], "speed": 2.0},
            '--speed: has no effect without pace = "captured"; add it or remove speed',
        ),
        (
            {"replay": ["in.pcap"], "pace": "captured", "speed": 0.0},
            "--speed: must be a number from 0.001 to 1000000",
        ),
        (
            {"replay": ["in.pcap"], "repeat": -1},
            "--repeat: must be an integer from 0 to 4294967296, not -1",
        ),
        (
            {"devices": ["wan=xdp:a", "xdp:b"]},
            "--device: xdp:b has no port; with several devices name the port of each, as in "
            "--device wan=xdp:eth0 --device lan=xdp:eth1",
        ),
        ({"devices": ["wan=xdp:a", "wan=xdp:b"]}, "--device: port wan has two devices, xdp:a and"),
        ({"devices": ["eth0"]}, '--device: unknown device "eth0"; write it as in sim:82599, '),
        (
            {"devices": ["xdp:a"], "record": ["out"]},
            "--record: port wan is xdp:a; only a simulated card can record",
        ),
        ({"to_cut": True}, "--cut: has no effect without --replay; add it or remove --cut"),
        ({"ports": ["a b"]}, 'port."a b": the name of a port must be 1 to 32 letters, digits, '),
    ],
)
def test_a_mistake_about_ports_is_told_in_one_sentence(
    wrong: dict[str, Any], told: str, folder: Path
) -> None:
    write_capture(folder / "in.pcap", [bytes(60)])
    (problem,) = target.examined("forward", Arguments(**wrong)).problems
    assert problem.startswith(told.replace("FOLDER", str(folder)))


def test_the_ports_are_the_devices_that_are_given(folder: Path) -> None:
    given = Arguments(devices=["wan=xdp:a", "lan=xdp:b"], queues=2)
    found = target.examined("forward", given)
    assert found.problems == []
    assert [(port.name, port.device, port.queues) for port in found.config.ports] == [
        ("wan", "xdp:a", 2),
        ("lan", "xdp:b", 2),
    ]
    given = Arguments(devices=["wan=xdp:a"], ports=["wan", "lan"], record=["lan=out"], queues=1)
    wan, lan = target.examined("forward", given).config.ports
    assert (wan.device, wan.wire) == ("xdp:a", None)
    assert lan.device == "sim:82599"
    assert lan.wire is not None
    assert not lan.wire.has_source, "nobody sends synthetic flows to a network"


def test_a_port_has_the_queues_of_its_interface() -> None:
    given = Arguments(devices=["xdp:lo"])
    loopback = interface.find("lo")
    assert loopback is not None
    assert target.examined("forward", given).config.queues == loopback.queues


def test_a_tap_that_may_have_any_number_of_queues_says_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loopback = interface.find("lo")
    assert loopback is not None
    for queues, expected in ((1, 1), (256, None)):
        found = dataclasses.replace(loopback, queues=queues)
        monkeypatch.setattr(interface, "find", lambda name, found=found: found)
        assert target._queues(Arguments(devices=["tap:t0"])) == expected


def test_a_record_on_the_replayed_file_is_refused(folder: Path) -> None:
    write_capture(folder / "in.pcap", [bytes(60)])
    found = target.examined("forward", Arguments(replay=["in.pcap"], record=["./in.pcap"]))
    assert found.problems == [
        f"--record: {folder}/in.pcap is the capture that is replayed; record to another file"
    ]


def test_a_configuration_file_leaves_no_room_for_these_arguments(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        target.examined("edge.toml", EVERY)
    assert str(caught.value) == (
        "--name, -o, --queues, --replay, --record, --ports, --cut, --state, --device, --pace, "
        "--speed, --repeat cannot be given with a configuration file: write name, worker.options, "
        "port.NAME.queues, port.NAME.wire.replay, port.NAME.wire.record, port.NAME, "
        "port.NAME.wire.cut, worker.state, port.NAME.device, port.NAME.wire.pace, "
        "port.NAME.wire.speed, port.NAME.wire.repeat in edge.toml"
    )


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_command_line_has_every_argument(command: str) -> None:
    words = ["forward", "--replay", "a", "--record", "b", "-o", "c=1", "-o", "d=x"]
    words += ["--queues", "2", "--name", "edge", "--ports", "wan,lan", "--cut", "--state", "70000"]
    words += ["--device", "wan=xdp:a", "--device", "lan=xdp:b"]
    words += ["--pace", "rate", "--speed", "0.5", "--repeat", "0", "--blanks", "32"]
    words += ["--mtu", "9000"]
    given = cli.parser().parse_args([command, *words])
    assert given.what == "forward"
    assert arguments_of(given) == Arguments(
        None,
        [("c", 1), ("d", "x")],
        ["a"],
        ["b"],
        2,
        "edge",
        ["wan", "lan"],
        True,
        70000,
        ["wan=xdp:a", "lan=xdp:b"],
        "rate",
        0.5,
        0,
        32,
        9000,
    )
    assert arguments_of(given).given() == list(builtin.ARGUMENTS)
    assert arguments_of(cli.parser().parse_args([command, "x"])).given() == []
