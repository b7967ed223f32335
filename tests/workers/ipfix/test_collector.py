"""What the option `export` may name."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ringline.shm.errors import PluginError
from ringline.workers.ipfix.collector import target_of


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("udp://192.0.2.1", "192.0.2.1", 4739),
        ("udp://collector.example:2055", "collector.example", 2055),
        ("udp://[2001:db8::1]", "2001:db8::1", 4739),
        ("udp://[2001:db8::1]:9995/", "2001:db8::1", 9995),
        ("udp://[fe80::1%25eth0]:9995", "fe80::1%eth0", 9995),
    ],
)
def test_a_collector_has_a_host_and_a_port(url: str, host: str, port: int) -> None:
    target = target_of(url)
    assert (target.host, target.port, target.path) == (host, port, "")


BAD = {
    "": "it begins with neither udp:// nor file://",
    "collector:4739": "it begins with neither udp:// nor file://",
    "tcp://192.0.2.1": "it begins with neither udp:// nor file://",
    "udp://": "there is a host and a port in it, and nothing else",
    "udp://:4739": "there is a host and a port in it, and nothing else",
    "udp://a@192.0.2.1": "there is a host and a port in it, and nothing else",
    "udp://192.0.2.1/flows": "there is a host and a port in it, and nothing else",
    "udp://192.0.2.1:0": "a port is 1 to 65535",
    "udp://192.0.2.1:70000": "Port out of range 0-65535",
    "udp://192.0.2.1:http": "Port could not be cast",
    "udp://[2001:db8::1": "Invalid IPv6 URL",
    "file:///nobody/flows.ipfix": "there is no folder /nobody",
    "file:///tmp": "this is a folder; name a file in it",
    "file:///dev/null": "this is not a regular file",
    "file:///tmp/a\0b": "a character that cannot be printed",
}


@pytest.mark.parametrize("url", BAD)
def test_anything_else_is_one_sentence(url: str) -> None:
    with pytest.raises(PluginError) as caught:
        target_of(url)
    said = str(caught.value)
    assert said.startswith('the option export must be such as "udp://collector:4739"')
    assert BAD[url] in said
    assert "\n" not in said
    assert "\0" not in said


def test_a_host_without_an_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(PluginError, match=r"nobody\.invalid has no address: Name or service not"):
        target_of("udp://nobody.invalid").resolved()


def test_a_file_is_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert target_of("file://flows.ipfix").path == str(tmp_path / "flows.ipfix")
