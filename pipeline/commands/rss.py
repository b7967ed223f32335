"""`ringline rss`: to which queue the card sends each packet of a capture, or of a tuple.

The frames go through the simulated card and the driver's receive burst, after the driver wrote the
key and the redirection table as it does in a run. So the queues are those of a run
(tests/e2e/test_rss.py: test_a_run_has_the_same_packets_on_each_queue).
"""

from __future__ import annotations

import contextlib
import json
import os
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline._pipeline import lib
from ringline.pipeline.commands.rss_flows import Flow, flow_of, parse
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.rss import rss_key
from ringline.pipeline.ports.sim82599.capture_card import Received, deliver
from ringline.pipeline.terminal.progress import Progress
from ringline.shm.errors import UsageError
from ringline.shm.text import counted, printable
from ringline.workers.captures.captures import CaptureReader, Tally, descriptor_named

WIDTH = 80  # columns of the output


@dataclass
class Count:
    """Packets, and bytes without CRC."""

    packets: int = 0
    bytes: int = 0

    def add(self, length: int) -> None:
        """Count a frame of `length` bytes."""
        self.packets += 1
        self.bytes += length


@dataclass
class Spread:
    """How the card spreads the frames of a capture.

    queues: a count for each queue. flows: by flow and queue. unhashed: of frames without an RSS
    hash. left_out: frames that the card drops, because they are too long.
    """

    queues: list[Count]
    flows: dict[tuple[Flow, int], Count] = field(default_factory=dict)
    unhashed: int = 0
    left_out: int = 0

    def add(self, received: Received) -> None:
        """Count a frame."""
        length = len(received.data)
        self.queues[received.queue].add(length)
        if not received.flags & lib.RL_FLAG_HASH:
            self.unhashed += 1
        flow = flow_of(received.data)
        if flow is not None:
            self.flows.setdefault((flow, received.queue), Count()).add(length)

    def heaviest(self, number: int) -> list[tuple[Flow, int, Count]]:
        """The `number` flows with the most bytes, each with its queue and its count."""
        flows = sorted(self.flows.items(), key=lambda each: (-each[1].bytes, each[0][0].text()))
        return [(flow, queue, count) for (flow, queue), count in flows[:number]]

    def connections(self) -> tuple[int, int]:
        """How many connections were seen in both directions, and how many of them have all their
        packets on one queue."""
        queues: dict[Flow, set[int]] = {}
        for flow, queue in self.flows:
            queues.setdefault(flow, set()).add(queue)
        both = [
            queues[flow] | queues[flow.reversed()]
            for flow in queues
            if flow < flow.reversed() and flow.reversed() in queues
        ]
        return len(both), sum(len(each) == 1 for each in both)


def rss(given: Namespace) -> str:
    """The text or JSON for the arguments of arguments/rss.py.

    Raises UsageError, and what CaptureReader raises.
    """
    capture, tuples, flows, as_json = given.capture, given.tuples, given.flows, given.json
    if (capture is None) == (not tuples):
        raise UsageError("rss: give either a capture or --tuple")
    port = PortConfig("port", "sim:82599", queues=given.queues, rss_key=given.key)
    if capture is None:
        return _of_tuples([parse(text) for text in tuples], port, as_json)
    descriptor = descriptor_named(capture, 0)
    name = "standard input" if capture == "-" else capture
    read = Tally(name, to_cut=given.cut)
    with CaptureReader(read, descriptor=descriptor) as reader:
        spread = spread_of(reader, port)
    if as_json:
        found = {**_capture_json(name, spread, port, flows), "remarks": read.remarks()}
        return json.dumps(found, indent=2)
    lines = [*_capture_lines(name, spread, port, flows), *read.remarks()]
    return "\n".join(printable(line) for line in lines)


def spread_of(reader: CaptureReader, port: PortConfig) -> Spread:
    """How the card of `port` spreads the frames of a capture."""
    spread = Spread([Count() for _ in range(port.queues)])
    label = printable(os.path.basename(reader.tally.path))
    done = 0
    with contextlib.closing(Progress(label)) as progress:
        for some in deliver((frame.data for frame in reader), port):
            for received in some:
                spread.add(received)
            done += len(some)
            progress.show(reader.share, 1.0)
    spread.left_out = reader.tally.used - done
    return spread


def _key_json(port: PortConfig) -> dict[str, Any]:
    return {"key": port.rss_key, "key_bytes": rss_key(port.rss_key).hex()}


def _capture_json(name: str, spread: Spread, port: PortConfig, flows: int) -> dict[str, Any]:
    both, meet = spread.connections()
    per_queue = _flows_per_queue(spread)
    return {
        "capture": name,
        **_key_json(port),
        "queues": [
            {
                "queue": queue,
                "packets": count.packets,
                "bytes": count.bytes,
                "flows": per_queue[queue],
            }
            for queue, count in enumerate(spread.queues)
        ],
        "without_hash": spread.unhashed,
        "left_out": spread.left_out,
        "connections": {"in_both_directions": both, "on_one_queue": meet},
        "heaviest_flows": [
            {"flow": flow.text(), "queue": queue, "packets": count.packets, "bytes": count.bytes}
            for flow, queue, count in spread.heaviest(flows)
        ],
    }


def _flows_per_queue(spread: Spread) -> list[int]:
    flows = [0] * len(spread.queues)
    for _, queue in spread.flows:
        flows[queue] += 1
    return flows


def _capture_lines(name: str, spread: Spread, port: PortConfig, flows: int) -> Iterator[str]:
    packets = sum(count.packets for count in spread.queues)
    size = sum(count.bytes for count in spread.queues)
    yield f"{name}: {counted(packets, 'packet')}, {counted(size, 'byte')}, key {port.rss_key}"
    yield ""
    rows = [("queue", "packets", "share", "bytes", "share", "flows")]
    rows += [
        (
            str(queue),
            f"{count.packets:,}",
            _share(count.packets, packets),
            f"{count.bytes:,}",
            _share(count.bytes, size),
            f"{of_queue:,}",
        )
        for queue, (count, of_queue) in enumerate(
            zip(spread.queues, _flows_per_queue(spread), strict=True)
        )
    ]
    yield from _table(rows)
    if spread.unhashed:
        unhashed = counted(spread.unhashed, "packet")
        yield f"{unhashed} without a hash (not IP, or two VLAN tags): on queue 0"
    if spread.left_out:
        yield f"left out {counted(spread.left_out, 'frame')} that no card would receive: too long"
    both, meet = spread.connections()
    if both:
        yield (
            f"{counted(both, 'connection')} seen in both directions: {meet:,} on one queue, "
            f"{both - meet:,} on different queues"
        )
    else:
        yield "no connection was seen in both directions"
    if both > meet and port.rss_key != "symmetric":
        yield "with --key symmetric both directions meet on one queue"
    heaviest = spread.heaviest(flows)
    if heaviest:
        yield ""
        yield from _flow_table(
            ("queue", "packets", "bytes"),
            [
                ((str(queue), f"{count.packets:,}", f"{count.bytes:,}"), flow)
                for flow, queue, count in heaviest
            ],
        )


def _of_tuples(tuples: Sequence[Flow], port: PortConfig, as_json: bool) -> str:
    both = [(flow, flow.reversed()) for flow in tuples]
    there = [[_received(each, port) for each in pair] for pair in both]
    if as_json:
        found = [
            {
                "flow": flow.text(),
                "hash": ahead.rss_hash,
                "queue": ahead.queue,
                "reverse": {"hash": back.rss_hash, "queue": back.queue},
                "on_one_queue": ahead.queue == back.queue,
            }
            for flow, (ahead, back) in zip(tuples, there, strict=True)
        ]
        whole = {**_key_json(port), "queues": port.queues, "tuples": found}
        return json.dumps(whole, indent=2)
    lines = [f"{counted(port.queues, 'queue')}, key {port.rss_key}"]
    for pair, (ahead, back) in zip(both, there, strict=True):
        rows = [
            ((str(received.queue), f"0x{received.rss_hash:08x}"), flow)
            for flow, received in zip(pair, (ahead, back), strict=True)
        ]
        lines += ["", *_flow_table(("queue", "hash"), rows)]
        if ahead.queue == back.queue:
            lines.append(f"both directions are on queue {ahead.queue}")
        else:
            lines.append(f"the directions are on queues {ahead.queue} and {back.queue}")
    return "\n".join(lines)


def _received(flow: Flow, port: PortConfig) -> Received:
    ((received,),) = deliver([memoryview(flow.frame())], port)
    return received


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Right-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]


def _flow_table(heads: Sequence[str], rows: Iterable[tuple[Sequence[str], Flow]]) -> Iterator[str]:
    """Right-aligned columns and a flow; a flow that does not fit goes on in a second line."""
    rows = list(rows)
    before = _table([heads, *(cells for cells, _ in rows)])
    yield f"{before[0]}  flow"
    for cells, (_, flow) in zip(before[1:], rows, strict=True):
        line = f"{cells}  {flow.text()}"
        if len(line) <= WIDTH:
            yield line
        else:
            source, target = flow.ends()
            yield f"{cells}  {source}"
            yield f"        > {target}"
