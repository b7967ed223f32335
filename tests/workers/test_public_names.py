"""Every public name that plugins and their tests can use: a new one is a promise to keep."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ringline.workers import api, testing
from ringline.workers.worker import Worker, private_slot

API = {
    "CHECKSUM_BAD": "int",
    "FIX_CHECKSUMS": "int",
    "DROP": "int",
    "HASH": "int",
    "ICMP": "int",
    "ICMPV6": "int",
    "L3_OK": "int",
    "L4_OK": "int",
    "TCP": "int",
    "UDP": "int",
    "VLAN": "int",
    "Batch": "create flags gather hashes lengths ports scatter times verdicts vlan_tcis "
    "wire_lengths",
    "Counter": "add array value",
    "Counters": "array values",
    "Gauge": "array set value",
    "Headers": "checksum_at count dport dst dst_high end ethertype fragment index l3 l4 payload "
    "protocol sport src src_high version vlan",
    "Histogram": "array observe",
    "Log": "error info warning",
    "Map": "address capacity copy delete expire find insert items key_names key_words name refused "
    "touch value_names value_words values",
    "Meta": "created flags frame frame_max length port ports queue resize rss_hash time vlan_tci "
    "wire_length",
    "Option": "choices default help kind maximum minimum name",
    "Packet": "data flags length port resize rss_hash time verdict vlan_tci wire_length",
    "Part": "pack runs state tables unpack",
    "PluginError": "ending exit_code",
    "Prefixes": "address copy fill find4 find6 ipv4 ipv6 load name",
    "Table": "write",
    "Worker": "counter drop_reason ending gauge histogram log map memory options ports prefixes "
    "queue rehearsal shared state table time",
    "checksum": "function",
    "create": "function",
    "field": "function",
    "fix_checksums": "function",
    "headers": "function",
    "include_directory": "function",
    "native_plugin": "function",
    "ordered": "function",
    "packet_function": "function",
    "resize": "function",
    "set_field": "function",
    "update_checksum": "function",
}
TESTING = {
    "DROP": "int",
    "ERROR": "int",
    "Frame": "data flags port rss_hash time vlan_tci",
    "PluginError": "ending exit_code",
    "Result": "error frame reason verdict vlan_tci",
    "Run": "count counters created drops index log named remarks results",
    "run_plugin": "function",
}


def public(of: type) -> set[str]:
    """The public names of a class: attributes, fields, and what its constructor assigns."""
    names = set(dir(of)) - set(dir(Exception) if issubclass(of, Exception) else dir(object))
    if dataclasses.is_dataclass(of):
        names |= {field.name for field in dataclasses.fields(of)}
    elif "__init__" in vars(of):
        names |= set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(of.__init__)))
    return {name for name in names if not name.startswith("_")}


def surface(module: ModuleType) -> dict[str, str]:
    found = {}
    for name in module.__all__:
        it: Any = getattr(module, name)
        kind = " ".join(sorted(public(it))) if inspect.isclass(it) else type(it).__name__
        found[name] = kind
    return found


@pytest.mark.parametrize(("module", "names"), [(api, API), (testing, TESTING)])
def test_the_public_names_are_these_and_no_others(
    module: ModuleType, names: dict[str, str]
) -> None:
    assert surface(module) == names


def test_an_object_has_no_other_public_names_than_its_class() -> None:
    """Also not those that only the worker's loop uses."""
    seen: list[Any] = []

    class Looks:
        def setup(self, worker: Any) -> None:
            seen.append(worker)

        def process(self, batch: Any) -> None:
            seen.append(batch)
            seen.append(batch[0])

    testing.run_plugin(Looks, [bytes(60)])
    for it in seen:
        names = {name for name in dir(it) if not name.startswith("_")}
        assert names == set(API[type(it).__name__].split()), type(it)
    worker = Worker(private_slot(1 << 16), queue=0, ports=[], options={})
    for value in (worker.gauge("g"), worker.counter("c"), worker.histogram("h"), worker.log):
        names = {name for name in vars(value) if not name.startswith("_")}
        assert names == set(), type(value)


def test_every_public_name_is_described() -> None:
    for module in (api, testing):
        for name in module.__all__:
            it = getattr(module, name)
            if not (inspect.isclass(it) or inspect.isfunction(it)):
                continue
            assert it.__doc__, name
            for attribute in public(it) if inspect.isclass(it) else ():
                described = getattr(it, attribute, None)
                if inspect.isfunction(described):
                    assert described.__doc__, f"{name}.{attribute}"


def test_the_types_of_the_public_names_are_checked() -> None:
    """tests/types/public_surface.py names every class and function that has types to check."""
    text = (Path(__file__).parents[1] / "types" / "public_surface.py").read_text()
    untyped = {"create", "field", "resize", "set_field", "packet_function", "native_plugin"}
    flags = {name for name, kind in (API | TESTING).items() if kind == "int"}
    for name in set(API) | set(TESTING):
        if name not in untyped | flags | {"PluginError"}:
            assert re.search(rf"\b{name}\b", text), name
