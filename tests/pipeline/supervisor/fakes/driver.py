"""A fake driver process: it sends and receives the messages of a driver and moves no packet.

Usage: driver.py MODE. Modes:
 well       works correctly
 mute       does not answer `open`
 refuses    answers `open` with many `ports` and a `failed`
 miscounts  its books do not balance
 forgets    does not settle a queue for a successor
 deaf       closes its socket, and its heart beats on
 crashes    takes the card 0000:99:00.0, if it is configured; exits when told to drain
 stubborn   does not stop, ignores SIGABRT
 hangs      has no heartbeat
 unlinked   its card has no link
 finishes   sends `finished` at once
 fails      its port fails as soon as it runs
"""

from __future__ import annotations

import signal
import sys
import time

from ringline.shm.clock import ticks
from ringline.shm.control import Closed, Control
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment

PORT = {
    "name": "wan",
    "mac": "02:00:00:00:00:01",
    "link": {"up": True, "mbps": 10000},
    "statistics": {},
    "wire": {},
    "faults": [],
    "failed": "",
    "trouble": None,
    "bad_input": None,
}
SETTLED = {"returned": 1, "carried": 2, "lost": 3, "refused": 4}


def serve(control: Control, mode: str) -> int:
    lane = None
    rings: dict[int, RingPair] = {}
    while True:
        if lane is not None and mode != "hangs":
            lane.at("struct rl_lane_segment *").lane.heartbeat = ticks()
        received = control.receive(0.05)
        if received is None:
            continue
        message, descriptors = received
        what = message["do"]
        if what == "open" and mode == "refuses":
            for _ in range(100):
                control.send({"event": "ports", "ports": []})
            error = {"type": "HardwareError", "message": "port wan: no link flag after 10 s"}
            control.send({"event": "failed", "error": error})
            return 3
        if what == "open" and mode != "mute":
            lane = Segment.attach(descriptors[2])
            device = message["config"]["ports"][0]["device"]
            if mode == "crashes" and device == "pci:0000:99:00.0":
                Segment.attach(descriptors[0]).note_pci("0000:99:00.0")
            control.send({"event": "opened"})
        elif what == "begin":
            link = {"up": mode != "unlinked", "mbps": 10000 * (mode != "unlinked")}
            control.send({"event": "ready", "ports": [{**PORT, "link": link}]})
            if mode == "fails":
                control.send({"event": "ports", "ports": [{**PORT, "failed": "it is gone"}]})
            if mode == "finishes":
                control.send({"event": "finished"})
            if mode == "deaf":
                control.close()
                while lane is not None:
                    lane.at("struct rl_lane_segment *").lane.heartbeat = ticks()
                    time.sleep(0.05)
        elif what == "renew" and mode == "forgets" and message["generation"] > 1:
            pass
        elif what == "renew":
            queue = message["queue"]
            settled = SETTLED if queue in rings else dict.fromkeys(SETTLED, 0)
            if queue in rings:
                rings.pop(queue).close()
            if descriptors:
                rings[queue] = RingPair.attach(descriptors[0])
            answer = {"event": "renewed", "queue": queue, "generation": message["generation"]}
            control.send({**answer, "settled": settled})
        elif what == "drain":
            if mode == "crashes":
                return 1
            if mode == "stubborn":
                time.sleep(0.3)
            control.send({"event": "drained", "in_flight": 0})
        elif what == "stop":
            if mode == "stubborn":
                signal.signal(signal.SIGABRT, signal.SIG_IGN)
                time.sleep(600)
            if mode == "miscounts" and lane is not None:
                lane.at("struct rl_lane_segment *").balance.buffers_residual = -7
            control.send({"event": "stopped", "report": {"ports": [PORT]}})
            return 0


if __name__ == "__main__":
    try:
        code = serve(Control.from_environment(), sys.argv[1])
    except Closed:
        code = 0
    sys.exit(code)
