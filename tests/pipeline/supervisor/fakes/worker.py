"""A fake worker process: it sends and receives the messages of a worker and takes no packet.

The name of the plugin says what it does:
 well           works correctly
 late           is never prepared
 fails_prepare  sends `failed` instead of `prepared`
 fails_setup    sends `failed` instead of `ready`
 dies_at_first  is killed in set-up
 dies_once      is killed after `ready`, in generation 1
 dies_always    is killed after `ready`, in each generation
 hangs          has no heartbeat after `ready`, in generation 1, and ignores SIGABRT
 garbles        sends something other than a message, in generation 1
 deaf           closes its socket, in generation 1
 chatters       sends `ready` and nonsense again and again
 reports        sends a report at its end
 stubborn       does not stop
 tramples       overwrites its slot and is killed after `ready`, in generation 1
 tramples_twice the same, in generation 2 too
 confuses       the same, but with a directory that looks like one of a worker
 swears         sends `failed` with control characters and 100 kB of text
 complains      sends two errors with their tracebacks, one after the other
 digs           sends a report that is nested 500 times
"""

from __future__ import annotations

import os
import signal
import sys
import time

from ringline.shm._shm import ffi
from ringline.shm.clock import ticks
from ringline.shm.control import Closed, Control
from ringline.shm.errors import PluginError
from ringline.shm.rings import RingPair
from ringline.shm.slots import COUNTER, STATE, WorkerSlot


def serve(control: Control) -> int:
    received = control.receive(10)
    assert received is not None
    message, descriptors = received
    plugin, first = message["plugin"], message["generation"] == 1
    slot = WorkerSlot.attach(descriptors[2], message["state_bytes"])
    RingPair.attach(descriptors[1])
    if plugin == "late":
        time.sleep(600)
    if plugin == "fails_prepare":
        return fail(control, "the plugin fails_prepare does not compile: line 3")
    control.send({"event": "prepared"})
    if plugin == "fails_setup":
        return fail(control, "the plugin fails_setup raised KeyError in setup")
    if plugin == "dies_at_first":
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        lives = slot.lookup_or_add("lives", COUNTER)
        state = slot.lookup_or_add("state", STATE, "uint64", 1, 8)
        remembered = slot.lookup_or_add("remembered", COUNTER)
    except PluginError as error:
        return fail(control, str(error))
    put(slot, lives, word(slot, lives) + 1)
    put(slot, state, word(slot, state) + 1)
    put(slot, remembered, word(slot, state))
    if plugin == "swears":
        return fail(control, "\x1b[2Jboo" + "o" * 100_000)
    control.send({"event": "ready"})
    lives_to_trample = {"tramples": 1, "confuses": 1, "tramples_twice": 2}.get(plugin, 0)
    if message["generation"] <= lives_to_trample:
        time.sleep(0.5)  # the supervisor reads `ready`
        trample(slot, plugin == "confuses")
        os.kill(os.getpid(), signal.SIGKILL)
    if plugin == "complains":
        for number in (1, 2, 2):
            trace = [f'  File "mine.py", line {number}, in process']
            news = {"error": f"an error in line {number}", "trace": trace}
            control.send({"event": "report", "plugin": news})
    if plugin == "digs":
        deep: object = float("nan")
        for _ in range(500):
            deep = [deep]
        control.send({"event": "report", "plugin": {"deep": deep}})
    if plugin == "dies_always" or (plugin == "dies_once" and first):
        beat(slot)
        os.kill(os.getpid(), signal.SIGKILL)
    if plugin == "hangs" and first:
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        time.sleep(600)
    if plugin == "garbles" and first:
        control._socket.send(b".not json")
        time.sleep(600)
    if plugin == "deaf" and first:
        control.close()
        while True:
            beat(slot)
            time.sleep(0.05)
    while True:
        beat(slot)
        if plugin == "chatters":
            control.send({"event": "ready"})
            control.send({"event": 7, "error": [1]})
        received = control.receive(0.05)
        if received is not None and received[0]["do"] == "stop":
            if plugin == "stubborn":
                time.sleep(600)
            if plugin == "reports":
                control.send({"event": "report", "plugin": {"top": [1, 2, 3]}})
            return 0


def trample(slot: WorkerSlot, gently: bool) -> None:
    """Overwrite counters and directory; gently: exchange the names of the first two entries."""
    segment = slot.segment.at("struct rl_slot_segment *")
    first, second = segment.entries[0], segment.entries[1]
    if gently:
        first.name, second.name = ffi.string(second.name), ffi.string(first.name)
        return
    start = ffi.offsetof("struct rl_slot_segment", "counters")
    end = ffi.offsetof("struct rl_slot_segment", "area")
    slot.segment.memory[start:end] = b"\xff" * (end - start)


def beat(slot: WorkerSlot) -> None:
    slot.counters.heartbeat = ticks()


def word(slot: WorkerSlot, address: int) -> int:
    offset = address - slot.segment.address
    return int.from_bytes(slot.segment.memory[offset : offset + 8], "little")


def put(slot: WorkerSlot, address: int, value: int) -> None:
    offset = address - slot.segment.address
    slot.segment.memory[offset : offset + 8] = value.to_bytes(8, "little")


def fail(control: Control, sentence: str) -> int:
    control.send({"event": "failed", "error": {"type": "PluginError", "message": sentence}})
    return 20


if __name__ == "__main__":
    try:
        code = serve(Control.from_environment())
    except Closed:
        code = 0
    sys.exit(code)
