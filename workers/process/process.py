"""The worker process: it runs one plugin on one queue.

It gets file descriptors, not names, for its memory: packet memory, its own two rings, its
worker slot. It maps nothing of a card, and of another worker only, to read, the slot if that
worker runs the same plugin.

The messages that it takes and sends are in shm/messages.py.

With a plugin in C it starts in 13 ms. For that it does not import json, socket, typing,
dataclasses and other slow modules (see channel.py), and start.py starts it without
Python's site, which takes 25 ms.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself takes 4 ms
import gc
import os
import sys
import time

from ringline.shm import signals, slots
from ringline.shm._shm import ffi, lib
from ringline.shm.errors import PluginError, RinglineError
from ringline.shm.segments import Segment
from ringline.shm.text import printable
from ringline.workers.named.log import Log
from ringline.workers.named.shared import PeerSlot
from ringline.workers.process import exits
from ringline.workers.process.channel import Channel, Closed
from ringline.workers.process.engine import DRAINED, FAULT, TURN_SECONDS, Engine
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context, Tier, sentence, where
from ringline.workers.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ringline.shm.messages import FromWorker, PluginReport, WorkerOpen

DRAIN_SECONDS = 2.0  # else a driver that keeps pushing would keep a stopping worker alive
REPORT_SECONDS = 1.0
COMPLAINT_SECONDS_MAX = 60.0  # longest time between two reports of the same failure
FAILING_SECONDS = 5.0  # after failing on every packet for this long, a worker is replaced
FAILING_PACKETS = 100  # fewer failures than this are not enough to decide


class FailureDetector:
    """Tells when a plugin has failed on every packet for FAILING_SECONDS."""

    def __init__(self, now: float) -> None:
        self._worked_at = now
        self._packets = self._failed = 0

    def only_failures(self, packets: int, failed: int, now: float) -> bool:
        """Whether every packet of the last FAILING_SECONDS failed.

        `packets` and `failed` are counted since the start of the worker, `now` is in seconds.
        """
        more, worse = packets - self._packets, failed - self._failed
        if 0 < more < FAILING_PACKETS and more == worse:
            return False  # too few packets to decide: wait for more
        if more == 0 or more > worse:
            self._worked_at = now
        self._packets, self._failed = packets, failed
        return now - self._worked_at > FAILING_SECONDS


class Complaints:
    """The reports about a plugin that fails. A new failure is reported at once; the pause between
    reports of the same failure doubles, so that they do not fill the log."""

    def __init__(self, plugin: str, engine: Engine) -> None:
        self._plugin = plugin
        self._engine = engine
        self._raised = engine.counters.plugin_errors
        self._no_port = engine.counters.verdict_errors
        self._at = 0.0
        self._pause = 0.0
        self._what = ""

    def due(self, now: float) -> str | None:
        """The sentence to report now, or None. `now` is in seconds."""
        if now < self._at:
            return None
        raised = self._engine.counters.plugin_errors - self._raised
        no_port = self._engine.counters.verdict_errors - self._no_port
        what = complaint = self._engine.complaint()
        if complaint is None and raised:
            what = "raised"
            complaint = (
                f"raised on {_packets(raised)}; `ringline try` with a capture shows the error"
            )
        elif complaint is None and no_port:
            what = "no port"
            complaint = (
                f"gave {_packets(no_port)} a verdict that is neither a port, DROP nor a drop reason"
            )
        if what is None or complaint is None:
            return None
        self._raised += raised
        self._no_port += no_port
        same = what == self._what
        self._pause = min(2 * self._pause, COMPLAINT_SECONDS_MAX) if same else REPORT_SECONDS
        self._at = now + self._pause
        self._what = what
        return f"plugin {self._plugin}: {complaint}"


def _packets(number: int) -> str:
    return f"{number} packet{'' if number == 1 else 's'}"


class Process:
    """A worker process after the message `open`."""

    def __init__(self, channel: Channel, message: WorkerOpen, descriptors: list[int]) -> None:
        self._channel = channel
        self._message = message
        # The rings are new, so their header can be trusted, and a matching layout version
        # there holds for all segments. Other workers can write to the header of packet memory.
        self._rings = Segment.attach(descriptors[1], kind=lib.RL_SEGMENT_RINGS)
        self._packets = Segment.attach_known(
            descriptors[0], kind=lib.RL_SEGMENT_PACKETS, used=lib.RL_HEADER_BYTES
        )
        self._slot = slots.WorkerSlot.attach(descriptors[2], message["state_bytes"])
        self._peers = [PeerSlot(fd, message["state_bytes"]) for fd in descriptors[3:]]
        # A process that the plugin forks holds no packet: it must neither write into frames nor
        # go on in the packet loop when it returns from the plugin.
        for segment in (self._rings, self._packets):
            segment.withhold_from_forks()
        for segment in (self._rings, self._packets, self._slot.segment):
            segment.hide_descriptors()
        self._log = Log(self._write_log)

    def run(self) -> int:
        """Prepare the plugin, set it up and serve the queue; returns the exit code."""
        message = self._message
        gc.disable()
        try:
            tier = loading.load(message["plugin"], message["folder"])
            tier.accept(message["options"], message["folder"], message["places"])
            tier.prepare(
                Context(
                    queue=message["queue"],
                    ports=message["ports"],
                    debug=message["debug"],
                    state_bytes=self._slot.segment.used,
                )
            )
            self._send({"event": "prepared"})
            engine = self._set_up(tier)
            version = tier.version
        except PluginError as error:
            self._fail("PluginError", str(error))
            return exits.PLUGIN
        except (RinglineError, SystemExit):
            raise
        except BaseException as error:  # for instance a panic in a library, or a cancellation
            if isinstance(error, Exception) and not where(error):
                raise  # no line of the plugin took part
            self._fail("PluginError", f"plugin {message['plugin']}: {sentence(error)}")
            return exits.PLUGIN
        if tier.remarks:
            self._report({"remarks": tier.remarks})
        # The objects made so far live until the end: garbage collection skips them, numba's too.
        gc.freeze()
        gc.enable()
        self._send({"event": "ready", "version": version})
        return self._serve(engine)

    def _set_up(self, tier: Tier) -> Engine:
        message = self._message
        worker = Worker(
            self._slot,
            queue=message["queue"],
            ports=message["ports"],
            options=tier.options,
            log=self._log,
            reasons=message["reasons"],
            peers=self._peers,
        )
        tier.setup(worker)
        rings = self._rings.at("struct rl_rings_segment *")
        header = lib.RL_HEADER_BYTES
        return Engine(
            tier,
            worker,
            counters=self._slot.counters,
            in_=ffi.addressof(rings, "in"),
            out=ffi.addressof(rings, "out"),
            times=ffi.addressof(rings, "times"),
            memory=self._packets.address + header,
            view=self._packets.memory[header:],
            frame_max=message["frame_max"],
            busy=message["idle"] == "busy",
            yielding=message["yield"],
        )

    def _serve(self, engine: Engine) -> int:
        complaints = Complaints(self._message["plugin"], engine)
        failures = FailureDetector(time.monotonic())
        until = None
        while True:
            reason = engine.run()
            if reason == DRAINED:
                break
            if reason == FAULT:
                self._fail("Bug", "an index of a ring is out of range")
                return exits.RING_FAULT
            now = time.monotonic()
            received = self._channel.receive()
            if received is not None and received[0].get("do") == "stop":
                engine.stop()
                until = now + DRAIN_SECONDS
            if until is not None and now > until:
                break
            engine.turn()
            self._log._flush()
            if (complaint := complaints.due(now)) is not None:
                self._report_error(complaint, engine)
            if failures.only_failures(engine.counters.packets, engine.counters.plugin_errors, now):
                self._fail(
                    "PluginError",
                    f"plugin {self._message['plugin']} failed on every packet for "
                    f"{FAILING_SECONDS:.0f} s",
                )
                return exits.ERRORS
        self._last_tick(engine, 0.0 if until is None else until - time.monotonic())
        self._log._tell_left_out()
        return exits.STOPPED

    def _last_tick(self, engine: Engine, seconds: float) -> None:
        """Let the plugin write its tables once more, for the report of the run. It may take at most
        `seconds` for what it has still to do."""
        engine.tick_whole(seconds, pause=TURN_SECONDS, ending=True)
        if (complaint := engine.complaint()) is not None:
            self._report_error(f"plugin {self._message['plugin']}: {complaint}", engine)

    def _write_log(self, level: str, line: str) -> bool:
        return self._channel.try_send({"event": "log", "level": level, "line": line})

    def _report_error(self, complaint: str, engine: Engine) -> None:
        if engine.trace:
            self._report({"error": complaint, "trace": engine.trace})
        else:
            self._report({"error": complaint})

    def _send(self, message: FromWorker) -> None:
        self._channel.send(message)

    def _report(self, content: PluginReport) -> None:
        self._send({"event": "report", "plugin": content})

    def _fail(self, kind: str, text: str) -> None:
        self._send({"event": "failed", "error": {"type": kind, "message": text}})


def main() -> NoReturn:
    """Run as the worker process that the supervisor started; exits with a code of exits.py."""
    # Only the supervisor stops a worker: a terminal or service manager that signals the whole
    # group must not make it lose the packets that it holds.
    signals.ignore(signals.IGNORED_BY_CHILDREN)
    code = exits.ORPHAN
    if os.geteuid() != 0:  # rights that the supervisor has for interfaces of the kernel
        lib.rl_drop_capabilities()
    try:
        if lib.rl_die_with_parent(_signal.SIGKILL, os.getppid()) == 0:
            channel = Channel()
            received = channel.receive(60.0)
            if received is not None and received[0].get("do") == "open":
                message: Any = received[0]  # a WorkerOpen
                code = _live(channel, message, received[1])
    except Closed:
        pass
    except RinglineError as error:
        print(f"ringline worker: {printable(str(error))}", file=sys.stderr)
        code = error.exit_code
    # No clean-up is needed, and Python's own would take long with numba.
    sys.stderr.flush()
    os._exit(code)


def _live(channel: Channel, message: WorkerOpen, descriptors: list[int]) -> int:
    import faulthandler

    faulthandler.enable()  # the supervisor aborts a silent worker (SIGABRT): print the stack
    if message["cpu"] is not None:
        os.sched_setaffinity(0, {message["cpu"]})
    try:
        return Process(channel, message, descriptors).run()
    except RinglineError as error:
        failed: FromWorker = {
            "event": "failed",
            "error": {"type": type(error).__name__, "message": str(error)},
        }
        channel.send(failed)
        return error.exit_code


if __name__ == "__main__":
    main()
