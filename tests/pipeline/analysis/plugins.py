"""Plugins for tests of analyses: `./plugins.py:NAME`."""

from __future__ import annotations

import ctypes
import os
import time
import zlib
from typing import Any

from ringline.workers.api import DROP, Batch, Option, Part, Worker, ordered


class Sizes:
    """Counts packets and sizes in every way that a plugin has."""

    times = True

    def setup(self, worker: Worker) -> None:
        self.seen = worker.counter("seen")
        self.kinds = worker.counter("kinds", label="kind", values=("small", "large"))
        self.sizes = worker.histogram("sizes")
        self.newest = worker.gauge("newest")
        self.of = worker.state("of", "i8", (4096,))

    def process(self, batch: Batch) -> None:
        for packet in batch:
            self.seen.add()
            self.kinds["small" if packet.length < 100 else "large"].add()
            self.sizes.observe(packet.wire_length)
            self.newest.set(packet.time)
            self.of[min(packet.wire_length, 4095)] += 1
            packet.verdict = 0 if packet.length % 2 else DROP

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        a.state["of"] += b.state["of"]
        return a


class Order:
    """Keeps the first bytes of packets in the order of merge; ticks as well."""

    def setup(self, worker: Worker) -> None:
        self.bytes: list[int] = []
        self.ticks = worker.counter("ticks")

    def process(self, batch: Batch) -> None:
        self.bytes += [packet.data[0] for packet in batch]

    def tick(self, worker: Worker) -> None:
        self.ticks.add()

    def collect(self, worker: Worker) -> dict[str, Any] | None:
        import numpy as np

        if not worker.ending and len(self.bytes) < 10:
            return None
        taken, self.bytes = np.array(self.bytes, np.uint8), []
        return {"order": taken}

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        import numpy as np

        return Part({"order": np.concatenate([a.state["order"], b.state["order"]])})

    @staticmethod
    def present(part: Part) -> dict[str, Any]:
        return {"order": {"first": part.state["order"], "text": ["a,b"] * len(part.state["order"])}}


class Rows:
    """Counts packets by their first two bytes, in rows that are in order."""

    def setup(self, worker: Worker) -> None:
        self.counts: dict[int, int] = {}

    def process(self, batch: Batch) -> None:
        for packet in batch:
            key = packet.data[0] << 8 | packet.data[1]
            self.counts[key] = self.counts.get(key, 0) + 1

    def collect(self, worker: Worker) -> dict[str, Any]:
        import numpy as np

        taken, self.counts = np.array(sorted(self.counts.items()), np.int64).reshape(-1, 2), {}
        return {"rows": taken}

    @staticmethod
    @ordered(rows=1)
    def merge(a: Part, b: Part) -> Part:
        import numpy as np

        rows = np.concatenate([a.state["rows"], b.state["rows"]])
        keys, places = np.unique(rows[:, 0], return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, places, rows[:, 1])
        return Part({"rows": np.column_stack([keys, counts])})

    @staticmethod
    def present(part: Part) -> dict[str, Any]:
        return {"rows": {"key": part.state["rows"][:, 0], "packets": part.state["rows"][:, 1]}}


class Connections:
    """Keeps what it saw of each IPv4 flow, as a tracker of connections does: a hash of all its
    packets in their order, with their times and directions."""

    times = True

    def setup(self, worker: Worker) -> None:
        self.flows: dict[tuple[Any, ...], int] = {}
        self.packets = worker.counter("packets")
        self.newest = worker.gauge("newest")

    def process(self, batch: Batch) -> None:
        for packet in batch:
            frame = bytes(packet.data)
            self.packets.add()
            self.newest.set(packet.time)
            packet.verdict = 0
            if frame[12:14] == b"\x08\x00":
                protocol, part = frame[23], int.from_bytes(frame[20:22], "big") & 0x3FFF
                ports = (b"", b"")
                if protocol in (6, 17) and not part:
                    ports = frame[34:36], frame[36:38]
                ends = (frame[26:30], ports[0]), (frame[30:34], ports[1])
                key = (protocol, *sorted(ends))
                seen = self.flows.get(key, 0)
                what = (seen, packet.time, packet.wire_length, ends[0] <= ends[1], frame)
                self.flows[key] = zlib.crc32(repr(what).encode()) or 1

    def collect(self, worker: Worker) -> dict[str, Any] | None:
        import numpy as np

        if not worker.ending:
            return None
        return {"flows": np.array(sorted(self.flows.values()), np.uint32)}

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        import numpy as np

        return Part({"flows": np.sort(np.concatenate([a.state["flows"], b.state["flows"]]))})


class Slowly:
    """Presents a table whose pieces of 4096 rows take `seconds` each, after `first` seconds."""

    options = (Option("seconds", float, 0.0), Option("first", float, 0.0))

    def setup(self, worker: Worker) -> None:
        worker.state("seconds", "f8", (2,))[:] = worker.options["seconds"], worker.options["first"]

    def process(self, batch: Batch) -> None:
        pass

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        return a

    @staticmethod
    def present(part: Part) -> dict[str, Any]:
        each, first = part.state["seconds"]
        time.sleep(first)
        return {"slow": {"n": _Slow(each)}}


class _Slow:
    """A column of 12 pieces."""

    def __init__(self, seconds: float) -> None:
        import numpy as np

        self._seconds = seconds
        self._values = np.arange(12 * 4096)
        self.dtype = self._values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, which: slice) -> Any:
        time.sleep(self._seconds)
        return self._values[which]


class Stateful:
    """Has state and no merge."""

    def setup(self, worker: Worker) -> None:
        worker.state("of", "i8")

    def process(self, batch: Batch) -> None:
        pass


class Tabular:
    """Makes a table in its tick, and has no merge."""

    def process(self, batch: Batch) -> None:
        pass

    def tick(self, worker: Worker) -> None:
        worker.table("rows", "label", ["value"], 3).write([("a", (1,))])


class WrongCollect:
    """What it collects, of which there are several kinds, is no dict of arrays."""

    options = (Option("what", str),)

    def setup(self, worker: Worker) -> None:
        self.what = worker.options["what"]

    def process(self, batch: Batch) -> None:
        pass

    def collect(self, worker: Worker) -> Any:
        import numpy as np

        return {
            "nothing": None,
            "a list": [1, 2],
            "lists": {"rows": [1, 2]},
            "objects": {"rows": np.array(["a", None], object)},
        }[self.what]

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        a.state["rows"] += b.state["rows"]
        return a

    @staticmethod
    def present(part: Part) -> dict[str, Any]:
        return {"rows": {"row": part.state["rows"]}}


class RaisingMerge(Stateful):
    """Its merge fails."""

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        raise ValueError("these do not fit")


class WrongMerge(Stateful):
    """Its merge returns nothing."""

    @staticmethod
    def merge(a: Part, b: Part) -> None:
        a.state["of"] += b.state["of"]


class OneArgument(Stateful):
    """Its merge cannot be called with two parts."""

    @staticmethod
    def merge(a: Part) -> Part:
        return a


class OddMerge(Stateful):
    """Its merge returns what no file can hold."""

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        import numpy as np

        return Part({"of": np.array([object()])})


class OddTable(Stateful):
    """Its merge returns numbers of numpy in a table, which JSON does not know."""

    @staticmethod
    def merge(a: Part, b: Part) -> Part:
        return Part({}, {"rows": [("a", [a.state["of"].sum()])]})


class OddCollect(WrongMerge):
    """Its collect returns a list."""

    def collect(self, worker: Worker) -> list[int]:
        return [1]


class Asks:
    """Reads from standard input."""

    def process(self, batch: Batch) -> None:
        input()


class Waits:
    """Waits at each packet until the file `until` is there; makes the file `begun` before that."""

    options = (Option("begun", str, ""), Option("until", str, ""))

    def setup(self, worker: Worker) -> None:
        self.given = worker.options
        self.seen = worker.counter("seen")

    def process(self, batch: Batch) -> None:
        os.close(os.open(self.given["begun"], os.O_CREAT))
        while not os.path.exists(self.given["until"]):
            time.sleep(0.01)
        for _ in batch:
            self.seen.add()


class Raises:
    """Fails on packets that begin with 7."""

    def process(self, batch: Batch) -> None:
        for packet in batch:
            if packet.data[0] == 7:
                raise ValueError("seven")
            packet.verdict = 0


class Fussy:
    """Fails with another error on packets that begin with 7, 8 and 9."""

    def process(self, batch: Batch) -> None:
        for packet in batch:
            if packet.data[0] in (7, 8, 9):
                raise ValueError(f"a {packet.data[0]}")


class Seldom:
    """Sets a gauge to 42 at packets that begin with 5, and to 0 at those that begin with 6."""

    def setup(self, worker: Worker) -> None:
        self.seldom, self.never = worker.gauge("seldom"), worker.gauge("never")

    def process(self, batch: Batch) -> None:
        assert repr(self.never.value) == "0.0"
        for packet in batch:
            if packet.data[0] in (5, 6):
                self.seldom.set(42 if packet.data[0] == 5 else 0)


class Picky(Order):
    """Its collect fails when a packet began with 9."""

    def collect(self, worker: Worker) -> dict[str, Any] | None:
        if 9 in self.bytes:
            raise ValueError("a 9")
        return super().collect(worker)


class Hurt:
    """Crashes, hangs or changes its capture at a packet that begins with 9: once, if `once` names
    a file that it can make, else always."""

    options = (Option("how", str, "crash"), Option("once", str, ""), Option("file", str, ""))

    def setup(self, worker: Worker) -> None:
        self.given = worker.options
        self.seen = worker.counter("seen")

    def process(self, batch: Batch) -> None:
        for packet in batch:
            self.seen.add()
            if packet.data[0] == 9 and self._is_the_time():
                self._hurt()

    def _is_the_time(self) -> bool:
        once = self.given["once"]
        if not once:
            return True
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _hurt(self) -> None:
        how = self.given["how"]
        if how == "crash":
            ctypes.string_at(0)
        elif how == "hang":
            time.sleep(3600)
        else:
            with open(self.given["file"], "ab") as file:
                file.write(bytes(7))
