"""Messages of IPFIX, read back by their templates."""

from __future__ import annotations

import numpy as np
import pytest

from ringline.workers.ipfix import messages

from .decoding import Record, Stream

TOP = 0xFFFF_FFFF_FFFF_FFFF


def some_flows(count: int, seed: int = 1) -> np.ndarray:
    """Random rows of IPv4 and IPv6."""
    rng = np.random.default_rng(seed)
    flows = rng.integers(0, 1 << 62, (count, messages.COLUMNS), np.int64)
    flows[:, :4] *= rng.choice([1, -1], (count, 4))  # halves of addresses are signed
    version = rng.choice([4, 6], count)
    for high in (messages.SOURCE, messages.TARGET):
        flows[version == 4, high] = 0
        flows[version == 4, high + 1] &= 0xFFFFFFFF
    flows[:, messages.REST] = flows[:, messages.REST] & 0xFFFFFFFFFF00 | version
    flows[:, messages.PACKETS : messages.OCTETS + 1] &= 0xFFFF_FFFF_FFFF
    flows[:, messages.FLAGS] &= 0xFF
    flows[:, messages.REASON] = rng.integers(1, 6, count)
    return flows


def expected(row: list[int]) -> Record:
    """A row as a data record."""
    source_high, source, target_high, target, rest, packets, octets, first, last, flags, why = row
    fields = {152: first // 10**6, 153: last // 10**6, 1: octets, 2: packets, 6: flags, 136: why}
    fields |= {7: rest >> 32 & 0xFFFF, 11: rest >> 16 & 0xFFFF, 4: rest >> 8 & 0xFF}
    if rest & 0xFF == 4:
        return Record(256, fields | {8: source, 12: target})
    ends = {27: (source_high & TOP) << 64 | source & TOP, 28: (target_high & TOP) << 64}
    ends[28] |= target & TOP
    return Record(257, fields | ends)


def in_message(flows: np.ndarray) -> list[Record]:
    """Rows as the data records of one message: those of IPv4 come first."""
    return sorted(map(expected, flows.tolist()), key=lambda record: record.template)


@pytest.mark.parametrize("message_bytes", [300, 1400, 65535])
@pytest.mark.parametrize("count", [0, 1, 500, 3000])
def test_records_are_the_flows_in_their_order(count: int, message_bytes: int) -> None:
    flows = some_flows(count)
    stream = Stream()
    stream.read(messages.message(messages.templates(), seconds=7, sequence=0, domain=3))
    found = 0
    for sets, rows in messages.flow_sets(flows, message_bytes):
        sent = messages.message(sets, seconds=8, sequence=stream.sequence, domain=3)
        assert len(sent) <= message_bytes
        more = stream.read(sent)
        assert more == in_message(rows)
        assert (rows == flows[found : found + len(rows)]).all()
        found += len(rows)
    assert found == count
    assert stream.domains == {3}
    # A message is full: two more records would not fit, also not in a set of their own.
    assert stream.count - 1 <= 2 + count * 72 / (message_bytes - 16 - 8 - 72)


def test_statistics_are_read_by_their_templates() -> None:
    sets = messages.templates() + messages.statistics(5, 6, (1, 2, 1 << 40, 4), (7, 8, 9))
    found = Stream().read(messages.message(sets, seconds=0, sequence=0, domain=5))
    assert found == [
        Record(258, {149: 5, 41: 1, 40: 2, 42: 1 << 40, 164: 4}),
        Record(259, {144: 6, 166: 7, 167: 8, 168: 9}),
    ]


def test_numbers_of_32_bits_begin_again() -> None:
    stream = Stream(sequence=1 << 32)
    sets = messages.templates()
    stream.read(messages.message(sets, seconds=1 << 32, sequence=1 << 32, domain=0))
    assert stream.times == [0]
