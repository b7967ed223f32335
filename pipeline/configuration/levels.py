"""Advice for a key that stands in the wrong table, such as `queues` at the top of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# A configuration that has each table; NAME stands for the name of a port, 0 for a worker.
SPECIMEN: dict[str, Any] = {
    "memory": {},
    "port": {"NAME": {"device": "sim:82599", "wire": {"flows": {}}}},
    "worker": {"restart": {}, "0": {}},
    "driver": {},
    "metrics": {},
}
PORT = "port.NAME"
MEANT = {"instance": "name"}  # a word that users write -> the key


def advice(levels: Mapping[str, Sequence[str]], path: str, key: str, value: Any) -> str:
    """The end of the sentence about the unknown `key` of the table at `path`: where it belongs,
    or "". `levels` has the keys of each table of SPECIMEN, by its path."""
    if not path and isinstance(value, dict) and value and set(value) <= set(levels[PORT]):
        return f"; write [port.{key}] for a port"
    key = MEANT.get(key, key)
    words = path.split(".")
    port = f"port.{words[1]}" if words[0] == "port" and len(words) > 1 else PORT
    places = []
    for table, keys in levels.items():
        full = f"{table}.{key}" if table else key
        is_table = full in levels or full in {"port", "worker.options", "worker.0.options"}
        if key not in keys or key.isdigit() or isinstance(value, dict) != is_table:
            continue
        if table.startswith("worker.0") and key in levels["worker"]:
            continue
        if not table:
            places.append(f"as {key} above the first [table]")
        else:
            full = full.replace(PORT, port).replace("worker.0", "worker.N")
            places.append(f"as {full}" + (", in the table of a port" if PORT in full else ""))
    return f"; write it {' or '.join(places)}" if places else ""
