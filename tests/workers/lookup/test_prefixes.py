"""Prefix tables in Python: what they find, what they refuse, and how they keep their memory."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.shm.errors import PluginError
from ringline.workers.api import Prefixes
from ringline.workers.worker import Worker, private_slot

BYTES = 1 << 20

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def successor(slot: Any) -> Worker:
    """The next worker on this slot."""
    return Worker(slot, queue=0, ports=["wan", "lan"], options={})


def table(ipv4: int = 300, ipv6: int = 300, missing: int = -1) -> Prefixes:
    return successor(private_slot(BYTES)).prefixes("rules", ipv4, ipv6, missing)


def network(version: int, address: int, length: int) -> Network:
    bits = 32 if version == 4 else 128
    first = address >> (bits - length) << (bits - length)
    return ipaddress.ip_network((first, length))


def best(rules: dict[Network, int], version: int, address: int) -> int:
    """What a search through all prefixes finds."""
    found = [
        (one.prefixlen, value)
        for one, value in rules.items()
        if one.version == version
        and int(one.network_address) <= address <= int(one.broadcast_address)
    ]
    return max(found)[1] if found else -1


def look(rules: Prefixes, version: int, address: int) -> int:
    if version == 4:
        return rules.find4(address)
    return rules.find6(address >> 64, address & (1 << 64) - 1)


NETWORKS = st.one_of(
    st.builds(network, st.just(4), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(network, st.just(6), st.integers(0, 2**128 - 1), st.integers(0, 128)),
    # Close together, so that many nest and touch.
    st.builds(network, st.just(4), st.integers(0x0A000000, 0x0A00003F), st.integers(24, 32)),
    st.builds(network, st.just(6), st.integers(0, 63).map(lambda n: n << 60), st.integers(56, 128)),
)


@given(st.dictionaries(NETWORKS, st.integers(-3, 3), max_size=40), st.randoms())
def test_it_finds_what_a_search_through_all_prefixes_finds(
    rules: dict[Network, int], chance: random.Random
) -> None:
    rows = [(str(one), value) for one, value in rules.items()]
    chance.shuffle(rows)
    ours = table()
    ours.fill(rows)
    assert len(ours) == len(rules)
    edges = [(4, 0), (4, 2**32 - 1), (6, 0), (6, 2**128 - 1)]
    for one in rules:
        edges += [
            (one.version, int(one.network_address)),
            (one.version, int(one.broadcast_address)),
        ]
    for version, edge in edges:
        for address in (edge - 1, edge, edge + 1):
            if 0 <= address < 2 ** (32 if version == 4 else 128):
                assert look(ours, version, address) == best(rules, version, address), (
                    version,
                    hex(address),
                )


def test_many_prefixes_in_a_small_part_of_the_addresses() -> None:
    """The index then divides that part, and the search in a bucket takes many steps."""
    ours = table(ipv4=5000, ipv6=5000)
    ours.fill(
        [(f"10.0.{n >> 8}.{n & 255}/32", n) for n in range(0, 5000, 2)]
        + [(f"2001:db8::{n:x}/128", n) for n in range(0, 5000, 2)]
        + [("0.0.0.0/0", 7), ("255.255.255.255", 8), ("ffff::/16", 9)]
    )
    high = 0x20010DB8 << 32
    for n in range(5000):
        assert ours.find4(0x0A000000 + n) == (7 if n % 2 else n)
        assert ours.find6(high, n) == (-1 if n % 2 else n)
    assert ours.find4(0xFFFFFFFF) == 8
    assert ours.find6(-1, -1) == 9


def test_a_value_has_64_bits_with_a_sign() -> None:
    ours = table(missing=2**63 - 1)
    ours.fill([("10.0.0.0/8", -(2**63)), ("11.0.0.0/8", 2**40)])
    assert ours.find4(0x0A000001) == -(2**63)
    assert ours.find4(0x0B000001) == 2**40
    assert ours.find4(0x0C000001) == 2**63 - 1
    assert ours.find6(0, 0) == 2**63 - 1


def test_an_empty_table_finds_nothing() -> None:
    ours = table(missing=5)
    assert (len(ours), ours.find4(1), ours.find6(1, 1)) == (0, 5, 5)
    ours.fill([("10.0.0.0/8", 1)])
    ours.fill([])
    assert (len(ours), ours.find4(0x0A000001)) == (0, 5)


def test_its_prefixes_stay_for_the_next_worker() -> None:
    slot = private_slot(BYTES)
    ours = successor(slot).prefixes("rules", ipv4=10)
    ours.fill([("10.0.0.0/8", 1)])
    again = successor(slot).prefixes("rules", ipv4=10)
    assert (again.address, len(again), again.find4(0x0A000001)) == (ours.address, 1, 1)
    with pytest.raises(PluginError, match="needs another name"):
        successor(slot).prefixes("rules", ipv4=11)


def test_a_copy_has_memory_of_its_own() -> None:
    ours = table()
    ours.fill([("10.0.0.0/8", 1)])
    other = ours.copy()
    ours.fill([("10.0.0.0/8", 2)])
    assert (other.find4(0x0A000001), ours.find4(0x0A000001)) == (1, 2)


LINES = """\
# rules of the office
prefix,action
10.0.0.0/8, permit     # all of it
10.1.0.0/16\tdeny
2001:db8::/32,permit

192.0.2.1 deny
"""


def test_a_file_is_read_by_lines(tmp_path: Any) -> None:
    path = tmp_path / "rules.csv"
    path.write_text(LINES.partition("\n")[2])
    ours = table()
    with path.open() as file:
        ours.load(file, {"permit": 1, "deny": 0}, header=True)
    found = [ours.find4(int(ipaddress.ip_address(text))) for text in ("10.2.3.4", "10.1.2.3")]
    assert found == [1, 0]
    assert ours.find4(int(ipaddress.ip_address("192.0.2.1"))) == 0
    assert ours.find4(int(ipaddress.ip_address("192.0.2.2"))) == -1
    assert ours.find6(0x20010DB8 << 32, 1) == 1


@pytest.mark.parametrize("first", ["10.0.0.0/8,deny", "2001:db8::/32 what", "192.0.2.1"])
def test_a_prefix_in_the_place_of_the_header_is_not_lost(first: str) -> None:
    ours = table()
    told = "line 1: .* is a prefix, and not the name of a column: write the names above it"
    with pytest.raises(PluginError, match=told):
        ours.load([first, "0.0.0.0/0,permit"], {"permit": 1, "deny": 0}, header=True)
    assert len(ours) == 0


def test_a_value_is_an_integer_unless_the_plugin_says_otherwise() -> None:
    ours = table()
    ours.load(["10.0.0.0/8 12"])
    assert ours.find4(0x0A000001) == 12
    ours.load(["10.0.0.0/8,0x1f"], lambda text: int(text, 16))
    assert ours.find4(0x0A000001) == 31


WRONG = [
    "10.0.0.1/8,1",
    "10.0.0.0/33,1",
    "10.0.0.0/ 8,1",
    "10.0.0,1",
    "host,1",
    "2001:db8::1/64,1",
    "10.0.0.0/8",
    "10.0.0.0/8,x",
    "12.0.0.0/8,1",
    "12.0.0.0/8,2",
    "13.0.0.0/8,9223372036854775808",
]
SENTENCES = [
    "line 1: '10.0.0.1/8' has bits set after its length: write 10.0.0.0/8",
    "line 2: the length of '10.0.0.0/33' must be an integer, 0 to 32, in decimal digits",
    "line 3: the length of '10.0.0.0/ 8' must be an integer, 0 to 32, in decimal digits",
    "line 4: '10.0.0' is not an IPv4 or IPv6 prefix",
    "line 5: 'host' is not an IPv4 or IPv6 prefix",
    "line 6: '2001:db8::1/64' has bits set after its length: write 2001:db8::/64",
    "line 7: the value is missing: write it after a comma",
    "line 8: the value 'x' cannot be read",
    "line 10: '12.0.0.0/8' has another value in line 9",
    "line 11: the value must be -2^63 to 2^63 - 1, not 9223372036854775808",
]


def test_all_wrong_lines_are_reported_with_their_numbers(tmp_path: Any) -> None:
    ours = table()
    ours.fill([("10.0.0.0/8", 7)])
    path = tmp_path / "rules.csv"
    path.write_text("\n".join(WRONG))
    with pytest.raises(PluginError) as caught, path.open() as file:
        ours.load(file)
    assert str(caught.value) == (
        f"{path}: prefix table 'rules' stays as it was: " + "; ".join(SENTENCES)
    )
    assert (len(ours), ours.find4(0x0A000001)) == (1, 7)


def test_of_very_many_wrong_lines_the_first_are_named() -> None:
    with pytest.raises(PluginError) as caught:
        table().load([f"wrong{n},1" for n in range(1, 51)])
    message = str(caught.value)
    assert message.startswith("prefix table 'rules' stays as it was: line 1: 'wrong1' is not")
    assert "line 20: " in message
    assert "line 21" not in message
    assert message.endswith("; and 30 more")


def test_a_value_that_no_word_stands_for_is_refused() -> None:
    with pytest.raises(PluginError, match="line 1: the value must be permit or deny, not 'allow'"):
        table().load(["10.0.0.0/8,allow"], {"permit": 1, "deny": 0})


NO_PAIRS = [
    ("10.0.0.0/8",),
    ("10.0.0.0/8", 1, 2),
    "11.0.0.0/8",
    7,
    (None, 1),
    (b"12.0.0.0/8", 1),
    ("13.0.0.0/9", "1"),
]


def test_what_is_no_pair_is_named_like_a_wrong_prefix() -> None:
    with pytest.raises(PluginError) as caught:
        table().fill(cast("Any", NO_PAIRS))
    assert str(caught.value) == "prefix table 'rules' stays as it was: " + "; ".join(
        [
            "prefix 1: must be a pair (prefix, value), not ('10.0.0.0/8',)",
            "prefix 2: must be a pair (prefix, value), not ('10.0.0.0/8', 1, 2)",
            "prefix 3: must be a pair (prefix, value), not '11.0.0.0/8'",
            "prefix 4: must be a pair (prefix, value), not 7",
            "prefix 5: a prefix must be text, such as '10.0.0.0/8', not None",
            "prefix 6: a prefix must be text, such as '10.0.0.0/8', not b'12.0.0.0/8'",
            "prefix 7: the value must be an integer, not '1'",
        ]
    )


def test_a_file_that_is_not_text_is_refused_with_its_name(tmp_path: Any) -> None:
    path = tmp_path / "rules.csv"
    path.write_bytes(b"10.0.0.0/8,1\n\xff\xfe,2\n")
    ours = table()
    with pytest.raises(PluginError) as caught, path.open(encoding="utf-8") as file:
        ours.load(file)
    assert str(caught.value) == (
        f"{path}: prefix table 'rules' stays as it was: the file is not text in utf-8, because of "
        f"the byte 0xff; save it as UTF-8"
    )
    with pytest.raises(PluginError, match="line 1: is not text: open the file without the mode b"):
        ours.load(cast("Any", [b"10.0.0.0/8,1"]))


@pytest.mark.parametrize("path", ["rules.csv", b"rules.csv", Path("rules.csv")])
def test_a_path_in_place_of_a_file_is_refused(path: Any) -> None:
    with pytest.raises(PluginError, match=r"load takes an open file or lines, not .*rules\.csv"):
        table().load(path)


def test_a_value_without_a_word_to_choose_from_is_refused() -> None:
    with pytest.raises(PluginError, match="line 1: the value 'x' cannot be read"):
        table().load(["10.0.0.0/8,x"], {})


@pytest.mark.parametrize("value", [0.5, True, "1", None])
def test_a_value_must_be_an_integer(value: Any) -> None:
    with pytest.raises(PluginError, match="prefix 1: the value must be an integer, not"):
        table().fill([("10.0.0.0/8", value)])


def test_the_same_prefix_twice_with_one_value_is_no_mistake() -> None:
    ours = table()
    ours.fill([("10.0.0.0/8", 1), ("10.0.0.0/8", 1)])
    assert len(ours) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_more_prefixes_than_asked_for_are_refused_with_their_number(family: int) -> None:
    text = "10.0.0.{}" if family == 4 else "2001:db8::{}"
    ours = table(ipv4=3, ipv6=3)
    ours.fill([(text.format(n), n) for n in range(3)])
    with pytest.raises(PluginError) as caught:
        ours.fill([(text.format(n), n) for n in range(5)])
    assert str(caught.value) == (
        f"prefix table 'rules' stays as it was: these are 5 IPv{family} prefixes, and the table "
        f"has room for 3: make it with ipv{family}=5"
    )
    assert len(ours) == 3


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "prefix table 'rules' has room for no prefix: give ipv4 or ipv6"),
        ({"ipv4": -1}, "ipv4 of prefix table 'rules' must be 0 to 67108864, not -1"),
        ({"ipv6": 1.5}, "ipv6 of prefix table 'rules' must be an integer, not 1.5"),
        ({"ipv4": 1, "missing": 1 << 63}, "missing of prefix table 'rules' must be"),
        ({"ipv4": 10**6}, r"left in its slot: set state = \d+ or more under \[worker\]"),
    ],
)
def test_impossible_tables_are_refused(how: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        successor(private_slot(BYTES)).prefixes("rules", **how)


def test_the_state_that_is_named_is_enough() -> None:
    with pytest.raises(PluginError) as caught:
        worker = successor(private_slot(4096))
        worker.counter("seen")
        worker.prefixes("rules", ipv4=10_000)
    needed = int(str(caught.value).partition("state = ")[2].split()[0])
    room = 1 << 17  # at most, for what the plugin names after it
    for size, fits in ((needed, True), (needed - room, False)):
        worker = successor(private_slot(size))
        worker.counter("seen")
        if fits:
            worker.prefixes("rules", ipv4=10_000).fill([("10.0.0.0/8", 1)])
        else:
            with pytest.raises(PluginError, match="left in its slot"):
                worker.prefixes("rules", ipv4=10_000)
