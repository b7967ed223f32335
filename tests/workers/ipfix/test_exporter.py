"""The stream to a collector: what is sent, repeated, counted and lost."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ringline.workers.ipfix import exporter, messages
from ringline.workers.ipfix.collector import Link, Target, target_of
from ringline.workers.ipfix.exporter import Exporter
from ringline.workers.named import steps

from .decoding import Record, Stream, messages_of
from .test_messages import expected, some_flows


class Killed(BaseException):
    """In place of SIGKILL."""


class Broken(Link):
    """Takes messages until one of the given errors is due."""

    def __init__(self, errors: dict[int, BaseException]) -> None:
        self.errors = errors
        self.calls = 0
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        number = self.calls
        self.calls += 1
        if number in self.errors:
            raise self.errors[number]
        self.sent.append(message)

    def close(self) -> None:
        """Nothing to do."""


class At(Target):
    """A target with a link that a test made."""

    def connect(self, *, replace: bool = False) -> Link:
        link: Link = self.__dict__["link"]
        return link

    @classmethod
    def of(cls, link: Link) -> At:
        made = cls("udp://test")
        made.__dict__["link"] = link
        return made


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", port))
        made.settimeout(30)
        yield made


def counts() -> np.ndarray:
    return np.zeros(exporter.COUNTS, np.int64)


def flow_records(stream: Stream, sent: list[bytes]) -> list[str]:
    return as_set(it for message in sent for it in stream.read(message) if it.template < 258)


def as_set(records: Iterable[Record]) -> list[str]:
    """Records without their order."""
    return sorted(map(repr, (sorted(record.fields.items()) for record in records)))


def wanted(flows: np.ndarray) -> list[str]:
    return as_set(map(expected, flows.tolist()))


def knowing(sequence: int = 0) -> Stream:
    """A reader that has the templates already."""
    read = Stream(sequence)
    read._learn(messages.templates()[4:100], 0)
    read._learn(messages.templates()[104:], 1)
    return read


def test_templates_come_first_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "TEMPLATE_MESSAGES", 10)
    link = Broken({})
    stream = Exporter(At.of(link), counts(), domain=9)
    flows = some_flows(2000)
    stream.send(flows)
    stream.refresh(if_due=True)
    stream.close()
    read = Stream()
    assert flow_records(read, link.sent) == wanted(flows)
    assert sorted(set(read.messages_with_templates))[:3] == [0, 10, 20]
    assert read.domains == {9}
    assert read.sequence == stream.sequence


def test_templates_come_again_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Broken({})
    stream = Exporter(At.of(link), counts())
    stream.send(some_flows(1))
    stream.refresh(if_due=True)
    assert len(link.sent) == 2
    monkeypatch.setattr(exporter, "TEMPLATE_SECONDS", -1.0)
    stream.refresh(if_due=True)
    assert len(link.sent) == 3


class Refuses(Broken):
    """Nobody takes its first message; that is known when it was sent."""

    def refused(self) -> bool:
        return len(self.sent) == 1


def test_records_wait_for_their_templates() -> None:
    """A collector that begins between the templates and the records could not read these."""
    link, kept = Refuses({}), counts()
    stream = Exporter(At.of(link), kept)
    stream.send(some_flows(5))
    assert len(link.sent) == 1
    assert kept[exporter.LOST] == 5
    stream.send(flows := some_flows(5))
    stream.close()
    read = Stream(int.from_bytes(link.sent[1][8:12], "big"))
    assert flow_records(read, link.sent[1:]) == wanted(flows)
    assert kept[exporter.EXPORTED] == kept[exporter.LOST] == 5


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENETUNREACH, errno.EAGAIN, errno.ENOBUFS])
def test_every_record_is_counted(error: int) -> None:
    flows = some_flows(1000)
    kept = counts()
    link = Broken({n: OSError(error, os.strerror(error)) for n in (0, 3, 4, 9)})
    stream = Exporter(At.of(link), kept)
    stream.send(flows)
    stream.close()
    assert os.strerror(error) in stream.error
    assert kept[exporter.TAKEN] == 1000 == kept[exporter.EXPORTED] + kept[exporter.LOST]
    assert kept[exporter.LOST] > 0
    assert kept[exporter.MESSAGES] == len(link.sent)
    assert kept[exporter.OCTETS] == sum(map(len, link.sent))
    # Where a message is missing, the sequence numbers have a gap of as many records.
    read, arrived = knowing(), []
    for message in link.sent:
        read.sequence = max(read.sequence, int.from_bytes(message[8:12], "big"))
        arrived += [record for record in read.read(message) if record.template < 258]
    assert len(arrived) == kept[exporter.EXPORTED]
    for column, element, lost in (
        (messages.PACKETS, 2, exporter.LOST_PACKETS),
        (messages.OCTETS, 1, exporter.LOST_OCTETS),
    ):
        sent = sum(record.fields[element] for record in arrived)
        assert sent + int(kept[lost]) == sum(flows[:, column].tolist())


@pytest.mark.parametrize("number", [0, 1, 2, 7])
@pytest.mark.parametrize("before", [True, False], ids=["before it is sent", "after it is sent"])
def test_a_killed_exporter_repeats_no_record(number: int, before: bool) -> None:
    class Kills(Broken):
        def send(self, message: bytes) -> None:
            if not before and self.calls == number:
                self.sent.append(message)
            super().send(message)

    flows = some_flows(500)
    kept = counts()
    link = Kills({number: Killed()})
    with contextlib.suppress(Killed):
        Exporter(At.of(link), kept).send(flows)
    stream = Exporter(At.of(link), kept)  # the next process
    taken = int(kept[exporter.TAKEN])
    stream.send(flows[taken:])
    stream.close()
    read, arrived = knowing(), []
    for message in link.sent:
        sequence = int.from_bytes(message[8:12], "big")
        assert sequence == read.sequence or before, "no number is used twice, and none left out"
        read.sequence = sequence
        arrived += [record for record in read.read(message) if record.template < 258]
    lost = len(flows) - len(arrived)
    assert set(as_set(arrived)) <= set(wanted(flows))
    assert len(set(as_set(arrived))) == len(arrived), "a record was sent twice"
    assert lost <= 29
    assert (lost == 0) or before
    assert kept[exporter.TAKEN] == 500 == kept[exporter.EXPORTED] + kept[exporter.LOST]


def test_a_collector_that_is_away_and_comes_back() -> None:
    flows = some_flows(300)
    kept = counts()
    with listening() as there:
        port = there.getsockname()[1]
        stream = Exporter(target_of(f"udp://127.0.0.1:{port}"), kept)
        stream.send(flows[:1])
        stream.settle()
        assert Stream().read(there.recv(2000))  # templates and statistics
    stream.send(flows[1:200])  # nobody is there
    stream.settle()
    assert kept[exporter.EXPORTED] == 1
    assert kept[exporter.LOST] == 199
    assert stream.error == "the port of the collector is closed"
    with listening(port) as there:
        stream.send(flows[200:])
        stream.close()
        there.setblocking(False)
        sent = []
        with contextlib.suppress(BlockingIOError):
            while True:
                sent.append(there.recv(2000))
    read = Stream(int.from_bytes(sent[0][8:12], "big"))  # begins with the templates
    assert flow_records(read, sent) == wanted(flows[200:])
    assert kept[exporter.EXPORTED] == 101


def test_a_full_disk_leaves_whole_messages(tmp_path: Path) -> None:
    """A file of limited size stands for a full disk."""
    import resource
    import signal

    path = tmp_path / "flows.ipfix"
    kept = counts()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        stream = Exporter(target_of(f"file://{path}"), kept, replace=True)
        stream.send(some_flows(500))
        stream.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    sent = messages_of(path.read_bytes())
    assert len(sent) == kept[exporter.MESSAGES] > 2
    assert len(flow_records(Stream(), sent[:3])) > 0
    assert kept[exporter.EXPORTED] + kept[exporter.LOST] == 500
    assert stream.error


def test_a_file_that_is_there_is_replaced_or_continued(tmp_path: Path) -> None:
    target = target_of(f"file://{tmp_path / 'flows.ipfix'}")
    flows = some_flows(3)
    for replace, wanted in ((True, 2), (True, 2), (False, 4)):
        stream = Exporter(target, counts(), replace=replace)
        stream.send(flows)
        stream.close()
        assert len(messages_of(Path(target.path).read_bytes())) == wanted


def test_each_message_of_a_long_export_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(steps, "_show", lambda: seen.append(1))
    link = Broken({})
    Exporter(At.of(link), counts()).send_paced(some_flows(400, 3))
    assert len(seen) >= len(link.sent) - 1 > 5  # one has the templates
