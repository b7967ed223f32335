"""The keys of a port on a network interface of the kernel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import (
    Config,
    Match,
    PacketConfig,
    TapConfig,
    XdpConfig,
)
from ringline.pipeline.configuration.schema import read


def examined(text: str) -> tuple[Config, list[str]]:
    problems: list[str] = []
    return read(tomllib.loads(text), Path("/"), problems), problems


def port(keys: str, device: str = "xdp:eth0") -> tuple[Config, list[str]]:
    return examined(f'[port.wan]\ndevice = "{device}"\n{keys}\n')


def test_the_defaults() -> None:
    config, problems = port("")
    assert problems == []
    assert config.ports[0].xdp == XdpConfig()
    assert config.ports[0].kernel_interface
    assert config.dma_mode == "offset"


def test_every_key_is_read_and_survives_the_way_to_a_child() -> None:
    config, problems = port(
        """
mode = "auto"
attach = "generic"
hash = "software"
rss_key = "symmetric"
busy_poll_us = 20
channels = "set"
fix_checksums = true
force = true
take = [
  { ethertype = "arp" },
  { protocol = "udp", port = 4789, prefix = "192.0.2.0/24" },
  { ethertype = 0x88cc },
]
"""
    )
    assert problems == []
    assert config.ports[0].xdp == XdpConfig(
        mode="auto",
        attach="generic",
        take=(
            Match(ethertype=0x0806),
            Match(protocol=17, port=4789, prefix="192.0.2.0/24"),
            Match(ethertype=0x88CC),
        ),
        hash="software",
        busy_poll_us=20,
        channels="set",
        fix_checksums=True,
        force=True,
    )
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ('mode = "fast"', "port.wan.mode: must be one of copy, zero-copy, auto"),
        ("busy_poll_us = 2000", "must be an integer from 0 to 1000"),
        ('take = "some"', 'must be "all" or a list of tables such as { protocol'),
        ("take = []", "must have 1 to 64 tables, not 0"),
        ("take = [{}]", "port.wan.take[0]: says nothing; name an ethertype"),
        ('take = [{ prot = "udp" }]', 'port.wan.take[0].prot: unknown key; did you mean "port"'),
        (
            'take = [{ protocol = "ospf" }]',
            "port.wan.take[0].protocol: must be icmp, tcp, udp, gre, esp, icmpv6, sctp or an "
            'integer from 0 to 255, not "ospf"',
        ),
        ("take = [{ ethertype = 5 }]", "or an integer from 1536 to 65535, not 5"),
        ("take = [{ port = 0 }]", "must be an integer from 1 to 65535, not 0"),
        ('take = [{ prefix = "10.0.0.1/8" }]', "must be a prefix as in 192.0.2.0/24"),
        (
            'take = [{ protocol = "icmp", port = 5 }]',
            "port.wan.take[0]: no frame agrees: only TCP and UDP have ports",
        ),
        (
            'take = [{ ethertype = "arp", protocol = "udp" }]',
            "only IPv4 and IPv6 have protocols, ports and addresses",
        ),
        (
            'take = [{ ethertype = "ipv6", prefix = "10.0.0.0/8" }]',
            "the prefix is of IPv4, and the ethertype is not",
        ),
        (
            "take = [{ ethertype = 0x8100 }]",
            "take[0]: no frame agrees: this is the ethertype of a VLAN tag",
        ),
        ('dma = "offset"', "the kernel reaches packet memory by itself"),
        ('mac = "02:00:00:00:00:01"', "ip link set dev NAME address MAC"),
        ("vlan_strip = true", "frames keep their VLAN tag here"),
        ("vlan_filter = [100]", "the kernel receives for all VLANs here"),
        (
            'promiscuous = false\nmore_macs = ["02:00:00:00:00:01"]',
            "ip maddress add MAC dev NAME",
        ),
        ('rss_key = "symmetric"', 'has no effect without hash = "software"'),
        ("process = true", "only a simulated card can run in a process of its own"),
    ],
)
def test_a_mistake_is_one_sentence(keys: str, sentence: str) -> None:
    _, problems = port(keys)
    assert len(problems) == 1, problems
    assert sentence in problems[0]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a/b",
        "a:b",
        ".",
        "..",
        "0123456789abcdef",
        "\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4",
    ],
)
def test_the_name_of_an_interface_is_checked(name: str) -> None:
    _, problems = port("", f"xdp:{name}")
    assert len(problems) == 1
    assert "is not the name of a network interface" in problems[0]


@pytest.mark.parametrize(
    "keys",
    [
        'mode = "copy"',
        'attach = "native"',
        'take = "all"',
        'hash = "none"',
        "busy_poll_us = 0",
        'channels = "set"',
        "fix_checksums = true",
        "force = true",
    ],
)
def test_other_ports_do_not_have_these_keys(keys: str) -> None:
    _, problems = port(keys, "sim:82599")
    assert len(problems) == 1
    assert problems[0].endswith("only a network interface as in xdp:eth0 has this key")


def test_the_keys_of_packet_sockets() -> None:
    config, problems = port("", "packet:eth0")
    assert problems == []
    assert (config.ports[0].packet, config.ports[0].xdp) == (PacketConfig(), None)
    assert config.ports[0].kernel_interface
    assert config.dma_mode == "offset"
    keys = "outgoing = false\nqdisc_bypass = true\nblock_timeout_ms = 20"
    config, problems = port(keys, "packet:eth0")
    assert problems == []
    assert config.ports[0].packet == PacketConfig(False, True, 20)
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("outgoing = 1", "port.wan.outgoing: must be true or false"),
        ("block_timeout_ms = 0", "must be an integer from 1 to 100, not 0"),
        ('rss_key = "symmetric"', "the kernel spreads flows by a hash of its own here"),
        ('mode = "copy"', "only a network interface as in xdp:eth0 has this key"),
        ("vlan_strip = true", "frames keep their VLAN tag here"),
        ("vlan_filter = [100]", "the kernel receives for all VLANs here"),
        (
            'promiscuous = false\nmore_macs = ["02:00:00:00:00:01"]',
            "ip maddress add MAC dev NAME",
        ),
    ],
)
def test_a_mistake_in_a_port_on_packet_sockets_is_one_sentence(keys: str, sentence: str) -> None:
    _, problems = port(keys, "packet:eth0")
    assert len(problems) == 1, problems
    assert sentence in problems[0]


@pytest.mark.parametrize("key", ["outgoing = true", "qdisc_bypass = true", "block_timeout_ms = 1"])
def test_other_ports_do_not_have_the_keys_of_packet_sockets(key: str) -> None:
    _, problems = port(key)
    assert len(problems) == 1
    assert problems[0].endswith("only a network interface as in packet:eth0 has this key")


def test_a_copy_of_the_traffic_fits_beside_another_port_on_the_interface() -> None:
    text = '[port.one]\ndevice = "packet:eth0"\n[port.two]\ndevice = "{}:eth0"\n'
    _, problems = examined(text.format("xdp"))
    assert problems == []
    _, problems = examined(text.format("packet"))
    assert problems == ["port.two: uses the card of port one (packet:eth0)"]


def test_two_ports_on_one_interface_are_a_mistake() -> None:
    _, problems = examined('[port.one]\ndevice = "xdp:eth0"\n[port.two]\ndevice = "xdp:eth0"\n')
    assert problems == ["port.two: uses the card of port one (xdp:eth0)"]


def test_an_interface_fits_beside_every_card() -> None:
    for device, mode in (("sim:82599", "offset"), ("pci:0000:03:00.0", "offset")):
        config, problems = examined(
            f'[port.one]\ndevice = "xdp:eth0"\n[port.two]\ndevice = "{device}"\n'
        )
        assert problems == []
        assert config.dma_mode == mode


def test_without_copies_there_are_buffers_for_those_that_straddle_pages() -> None:
    copying, _ = port("")
    direct, _ = port('mode = "zero-copy"')
    assert direct.dma_mode == "pieces"
    usable = direct.buffers - direct.buffers * 2240 // 4096
    assert usable >= copying.buffers
    large, _ = examined(
        'memory.hugepages = "require"\n[port.wan]\ndevice = "xdp:eth0"\nmode = "auto"\n'
    )
    assert copying.buffers < large.buffers < copying.buffers * 1.01


def test_the_keys_of_a_tap_are_read_and_survive_the_way_to_a_child() -> None:
    config, problems = port("", "tap:tap0")
    assert problems == []
    assert config.ports[0].tap == TapConfig()
    assert config.ports[0].kernel_interface
    assert config.ports[0].xdp is None
    config, problems = port(
        'mtu = 1400\naddresses = ["192.0.2.1/24", "2001:db8::1/64"]\nup = false\n'
        'mac = "02:00:00:00:00:01"\nqueues = 4',
        "tap:tap0",
    )
    assert problems == []
    assert config.ports[0].tap == TapConfig(1400, ("192.0.2.1/24", "2001:db8::1/64"), False)
    assert config.ports[0].tap.settings == ("mtu", "addresses")
    assert Config.from_json(config.to_json()).ports == config.ports


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("mtu = 9217", "mtu: must be an integer from 68 to 9216, not 9217"),
        ("mtu = 67", "mtu: must be an integer from 68 to 9216, not 67"),
        ('addresses = "192.0.2.1/24"', "addresses: must be a list of addresses"),
        ('addresses = ["192.0.2.1"]', '"192.0.2.1" is none'),
        ('addresses = ["192.0.2.1/33"]', '"192.0.2.1/33" is none'),
        ('addresses = ["fe80::1%eth0/64"]', '"fe80::1%eth0/64" is none'),
        ("addresses = [1]", "1 is none"),
        ("up = 1", "up: must be true"),
        ("promiscuous = false", "promiscuous: a TAP receives every frame"),
        ('rss_key = "symmetric"', "rss_key: the kernel chooses the queue of a TAP"),
        ("vlan_strip = true", "vlan_strip: frames keep their VLAN tag"),
        ('dma = "auto"', "dma: the kernel reaches packet memory by itself"),
        ('mode = "copy"', "mode: only a network interface as in xdp:eth0 has this key"),
        ('take = "all"', "take: only a network interface as in xdp:eth0 has this key"),
    ],
)
def test_a_wrong_key_of_a_tap_gets_one_sentence(keys: str, sentence: str) -> None:
    _, problems = port(keys, "tap:tap0")
    assert len(problems) == 1
    assert sentence in problems[0]


@pytest.mark.parametrize("keys", ["addresses = []", "up = true"])
def test_other_ports_do_not_have_the_keys_of_a_tap(keys: str) -> None:
    for device in ("sim:82599", "xdp:eth0"):
        _, problems = port(keys, device)
        assert len(problems) == 1
        assert problems[0].endswith("only a network interface as in tap:tap0 has this key")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tap%d", "must be the name of one interface: without %"),
        ("", "is not the name of a network interface"),
        ("0123456789abcdef", "is not the name of a network interface: 1 to 15 bytes"),
    ],
)
def test_the_name_of_a_tap_is_checked(name: str, sentence: str) -> None:
    _, problems = port("", f"tap:{name}")
    assert len(problems) == 1
    assert sentence in problems[0]


def test_a_tap_and_another_port_cannot_be_one_interface() -> None:
    _, problems = examined('[port.one]\ndevice = "xdp:eth0"\n[port.two]\ndevice = "tap:eth0"\n')
    assert problems == ["port.two: uses the card of port one (xdp:eth0)"]


@pytest.mark.parametrize("device", ["xdp:eth0", "packet:eth0"])
def test_a_port_on_an_interface_has_no_mtu_of_its_own(device: str) -> None:
    _, problems = port("mtu = 9000", device)
    assert problems == [
        "port.wan.mtu: a port on an interface of the kernel receives frames of an MTU of at most "
        "1500; only a card or a TAP has this key"
    ]


@pytest.mark.parametrize("mtu", [1499, 9217])
def test_the_mtu_of_a_card_has_limits(mtu: int) -> None:
    _, problems = port(f"mtu = {mtu}", "sim:82599")
    assert problems == [f"port.wan.mtu: must be an integer from 1500 to 9216, not {mtu}"]
