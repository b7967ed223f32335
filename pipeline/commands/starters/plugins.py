"""The plugins that `ringline new` writes: one of each tier, which do the same, and their tests.

NAME stands for the name of the plugin, CLASS for the same as the name of a class.
"""

COMPILED = '''\
"""Send IPv4 back, and count the packets of each protocol; above a limit, drop the protocol."""

from typing import NamedTuple

import numpy as np

from ringline.workers.api import DROP, Counter, Option, field, packet_function


class State(NamedTuple):
    packets: np.ndarray  # by protocol number, such as 17 for UDP
    limit: int
    others: Counter


def setup(worker):  # before the first packet
    return State(
        packets=worker.state("packets", np.int64, 256),  # keeps its content after a crash
        limit=worker.options["limit"],
        others=worker.counter("not_ipv4"),
    )


def tick(worker, state):  # about once a second
    table = worker.table("protocols", "protocol", ["packets"], rows=256)
    table.write((str(n), [state.packets[n]]) for n in range(256) if state.packets[n])


@packet_function(
    setup=setup,
    tick=tick,
    options=[Option("limit", int, 0, "packets of one protocol; 0: no limit", minimum=0)],
)
def NAME(frame, meta, state):  # for each packet; compiled
    if meta.length < 34 or field(frame, 12, 2) != 0x0800:
        state.others[0] += 1
        return DROP
    protocol = frame[23]
    state.packets[protocol] += 1
    if state.limit and state.packets[protocol] > state.limit:
        return DROP
    return meta.port
'''

BATCH = '''\
"""Send IPv4 back, and count the packets of each protocol; above a limit, drop the protocol."""

from ringline.workers.api import DROP, Option


class CLASS:
    options = [Option("limit", int, 0, "packets of one protocol; 0: no limit", minimum=0)]

    def setup(self, worker):  # before the first packet
        self.limit = worker.options["limit"]
        self.packets = worker.state("packets", "i8", 256)  # keeps its content after a crash
        self.others = worker.counter("not_ipv4")
        self.table = worker.table("protocols", "protocol", ["packets"], rows=256)

    def tick(self, worker):  # about once a second
        self.table.write((str(n), [self.packets[n]]) for n in range(256) if self.packets[n])

    def process(self, batch):  # for up to 64 packets; one without a verdict is dropped
        for packet in batch:
            if packet.length < 34 or packet.data[12:14] != b"\\x08\\x00":
                self.others.add()
                continue
            protocol = packet.data[23]
            self.packets[protocol] += 1
            above = self.limit and self.packets[protocol] > self.limit
            packet.verdict = DROP if above else packet.port
'''

C = """\
/* Send IPv4 back, and count the packets of each protocol; above LIMIT, drop the protocol. */
#include "plugin.h"

#ifndef LIMIT
#define LIMIT 0 /* packets of one protocol; 0: no limit */
#endif

struct NAME_state {
    uint64_t packets[256]; /* by protocol number, such as 17 for UDP */
};

/* For each packet. The state is all zeros at first, and keeps its content after a crash. */
static inline int64_t NAME_packet(uint8_t *frame, struct rl_reference *meta,
                                  struct rl_batch *batch)
{
    struct NAME_state *state = (struct NAME_state *)batch->state;
    if (meta->length < 34 || frame[12] != 0x08 || frame[13] != 0x00)
        return RL_VERDICT_DROP;
    uint64_t packets = ++state->packets[frame[23]];
    return LIMIT && packets > LIMIT ? RL_VERDICT_DROP : meta->port;
}
RL_PLUGIN_WITH_STATE(NAME, NAME_packet, sizeof(struct NAME_state))
"""

_TEST_HEAD = '''\
"""Tests of NAME, without a network card: pytest test_NAME.py"""

'''

_FRAME = '''

def ipv4(protocol):
    """A frame of 60 bytes with the header of IPv4 and this protocol number."""
    return bytes(12) + b"\\x08\\x00\\x45" + bytes(8) + bytes([protocol]) + bytes(36)

'''

_TEST_PYTHON = (
    _TEST_HEAD
    + """\
from pathlib import Path

from ringline.workers.testing import DROP, run_plugin

PLUGIN = f"{Path(__file__).parent}/NAME.py:OBJECT"
"""
    + _FRAME
    + """
def test_ipv4_goes_back_and_is_counted():
    run = run_plugin(PLUGIN, [ipv4(17), ipv4(6), ipv4(17), bytes(60)])
    assert [result.verdict for result in run] == [0, 0, 0, DROP]
    assert run.named["not_ipv4"] == 1
    assert run.named["protocols"] == [("6", [1]), ("17", [2])]


def test_a_protocol_above_its_limit_is_dropped():
    run = run_plugin(PLUGIN, [ipv4(17)] * 3 + [ipv4(6)], options={"limit": 2})
    assert [result.verdict for result in run] == [0, 0, DROP, 0]
"""
)

_TEST_C = (
    _TEST_HEAD
    + """\
import os
import subprocess
from pathlib import Path

from ringline.workers.api import include_directory
from ringline.workers.testing import DROP, run_plugin

SOURCE = Path(__file__).parent / "NAME.c"


def compiled(folder, *arguments):
    made = folder / "NAME.so"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", f"-I{include_directory()}"]
    subprocess.run([*command, *arguments, SOURCE, "-o", made], check=True)
    return f"{made}:NAME"
"""
    + _FRAME
    + """
def test_ipv4_goes_back_and_the_rest_is_dropped(tmp_path):
    run = run_plugin(compiled(tmp_path), [ipv4(17), bytes(60), ipv4(6)])
    assert [result.verdict for result in run] == [0, DROP, 0]


def test_a_protocol_above_its_limit_is_dropped(tmp_path):
    run = run_plugin(compiled(tmp_path, "-DLIMIT=2"), [ipv4(17)] * 3 + [ipv4(6)])
    assert [result.verdict for result in run] == [0, 0, DROP, 0]
"""
)

# Tier -> (ending of the file, the plugin, its test, the object in the file).
TIERS = {
    "compiled": (".py", COMPILED, _TEST_PYTHON, "NAME"),
    "batch": (".py", BATCH, _TEST_PYTHON, "CLASS"),
    "c": (".c", C, _TEST_C, "NAME"),
}


def written(tier: str, name: str) -> tuple[dict[str, str], str]:
    """The files of a new plugin by name, the plugin first, and the name of its object."""
    ending, plugin, test, what = TIERS[tier]
    class_ = "".join(part.capitalize() for part in name.split("_"))

    def named(text: str) -> str:
        return text.replace("OBJECT", what).replace("CLASS", class_).replace("NAME", name)

    return {f"{name}{ending}": named(plugin), f"test_{name}.py": named(test)}, named(what)
