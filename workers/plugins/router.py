"""A router for IPv4 and IPv6: routes from a file, ARP, neighbour discovery, ICMP.

The packet function finds the interface, judges the packet (routing/judgement.py), and then turns
the frame into what leaves: the packet itself, a reply, an ICMP error, or a request for the MAC
address of a neighbour that nobody knows yet. No frame waits for an answer: the first packet to an
unknown neighbour becomes the request, and its sender sends it again. So the router needs no
blanks; with blanks it also asks again for a neighbour before its entry ends.

It does not fragment and reassembles nothing, and sends no redirects and no router advertisements.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ringline.workers.api import (
    L3_OK,
    VLAN,
    Counter,
    Counters,
    Option,
    PluginError,
    Prefixes,
    create,
    field,
    headers,
    packet_function,
    resize,
    set_field,
    update_checksum,
)
from ringline.workers.plugins.helper import helper
from ringline.workers.plugins.routing import answers as say
from ringline.workers.plugins.routing import judgement as judge
from ringline.workers.plugins.routing import neighbours
from ringline.workers.plugins.routing.interfaces import interfaces_of
from ringline.workers.plugins.routing.routes import SOURCE, Routes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ringline.workers.api import Worker

BURST = 10  # ICMP errors at once after a pause
ARP_FRAME = 60  # bytes without a tag; ARP itself is shorter
LONGEST_PADDED = 64  # a longer frame loses what follows its packet


class State(NamedTuple):
    place: NDArray[np.int16]  # shape (ports, 4096): the interface by port and VLAN, or -1
    interfaces: NDArray[np.int64]  # the columns are in judgement.py
    routes: Prefixes
    hops: NDArray[np.int64]  # the columns are in routes.py
    mine: NDArray[np.int64]  # shape (lines, 4): the neighbours that this worker heard of
    neighbours: NDArray[np.int64]  # shape (workers, lines, 4): those of all workers
    asked: NDArray[np.int64]  # the requests of this worker
    lifetime: int  # nanoseconds until a silent neighbour is forgotten
    token: int  # nanoseconds between two ICMP errors; 0: none
    full: NDArray[np.int64]  # [0]: when the bucket of ICMP errors is full again
    reasons: NDArray[np.int64]  # the drop reasons, as in judgement.REASONS
    said: Counters
    neighbours_full: Counter


def _setup(worker: Worker) -> State:
    made = interfaces_of(worker)
    routes = Routes(made)
    if worker.options["routes"] is not None:
        routes.read(worker.options["routes"])
    most = worker.options["neighbours"]
    if most & (most - 1):
        raise PluginError(f"the option neighbours must be a power of two, such as 1024, not {most}")
    lines = neighbours.SPARE * most
    mine, all_ = worker.shared("neighbours", np.int64, (lines, neighbours.ENTRY))
    place = np.full((len(worker.ports), 4096), -1, np.int16)
    rows = []
    for number, each in enumerate(made):
        place[each.port, each.vlan] = number
        own6, local = each.source6(), int(each.link_local)
        words = [each.port, each.vlan, each.mac, each.mtu, each.source4()]
        rows.append([*words, own6 >> 64, own6 & (1 << 64) - 1, local & (1 << 64) - 1])
    table, hops = routes.tables(worker)
    rate = worker.options["icmp_rate"]
    return State(
        place,
        np.array(rows, np.uint64).astype(np.int64),
        table,
        hops,
        mine,
        all_,
        np.zeros((neighbours.ASKED_LINES, neighbours.ASKED), np.int64),
        int(worker.options["lifetime"] * 1e9),
        1_000_000_000 // rate if rate else 0,
        np.zeros(1, np.int64),
        np.array([worker.drop_reason(name) for name in judge.REASONS], np.int64),
        worker.counter("said", label="what", values=judge.SAID),
        worker.counter("neighbours_full"),
    )


def _tick(worker: Worker, state: State) -> None:
    seen = state.mine[:, neighbours.SEEN]
    known = (state.mine[:, neighbours.MAC] != 0) & (worker.time - seen <= state.lifetime)
    worker.gauge("neighbours_heard").set(int(known.sum()))


@packet_function(
    setup=_setup,
    tick=_tick,
    options=[
        Option("addresses", dict, help='own addresses, { wan = ["192.0.2.1/24"], "lan.5" = … }'),
        Option("routes", Path, None, "a file with lines prefix,interface,next hop"),
        Option("macs", dict, {}, 'MAC addresses, { wan = "02:00:00:00:00:01" }'),
        Option("mtus", dict, {}, "longest IP packets in bytes, { lan = 1400 }"),
        Option("neighbours", int, 1024, "a power of two", minimum=64, maximum=1 << 18),
        Option("lifetime", float, 60.0, "seconds until a silent neighbour is forgotten", minimum=2),
        Option("icmp_rate", int, 100, "errors per second and worker", minimum=0, maximum=1_000_000),
    ],
)
def router(frame: Any, meta: Any, state: Any) -> int:
    """Forward or answer an IPv4 or IPv6 packet, or answer ARP."""
    reasons = state.reasons
    if meta.length < 34:
        return reasons[judge.BAD_FRAME]  # type: ignore[no-any-return]
    vlan, at = 0, 14
    if meta.flags & VLAN:
        vlan = meta.vlan_tci & 0xFFF
    elif field(frame, 12, 2) == 0x8100 and meta.length >= 38:
        vlan, at = field(frame, 14, 2) & 0xFFF, 18
    here = np.int64(state.place[meta.port, vlan])
    if here < 0:
        return reasons[judge.NO_INTERFACE]  # type: ignore[no-any-return]
    target, sender, now = field(frame, 0, 6), field(frame, 6, 6), meta.time
    group = target & say.GROUP != 0
    own = state.interfaces[here, judge.MAC]
    if target != own and not group:
        return reasons[judge.OTHER_HOST]  # type: ignore[no-any-return]
    kind, h = field(frame, at - 2, 2), headers(frame)
    if kind == say.IPV4:
        judged = judge.judge4(frame, h, state, here, group, meta.flags & L3_OK)
    elif kind == say.IPV6:
        judged = judge.judge6(frame, h, state, here, group, now)
    elif kind == say.ARP:
        judged = judge.judge_arp(frame, at, state, here, now)
    else:
        return reasons[judge.NOT_IP]  # type: ignore[no-any-return]
    action, reason, out, high, low, icmp, extra = judged

    if action == judge.FORWARD:
        row = extra
        extra = 0
        mac, age = neighbours.find(state.neighbours, state.lifetime, out, high, low, now)
        if mac < 0 or age > state.lifetime >> 1:
            asking, failed = neighbours.ask(state.asked, out, high, low, now)
            if mac < 0:
                action = judge.DISCARD
                if asking:
                    action = judge.REQUEST
                elif failed:
                    action = judge.ERROR
            elif asking:
                size = request_size(state, out, kind)
                copy = create(meta, size, state.interfaces[out, judge.PORT])
                if len(copy):
                    write_request(copy, state, out, row, high, low)
        if action == judge.REQUEST:
            frame = resize(meta, 0, request_size(state, out, kind) - meta.length)
            write_request(frame, state, out, row, high, low)
            meta.flags = meta.flags & ~VLAN
            return state.interfaces[out, judge.PORT]  # type: ignore[no-any-return]

    if action == judge.FORWARD:
        count_down(frame, h)
        tag = state.interfaces[out, judge.TAG]
        front = (18 if tag else 14) - h.l3
        back = h.end - meta.length if meta.length > LONGEST_PADDED else 0
        if front or back:
            frame = resize(meta, front, back)
        say.write_ethernet(frame, mac, state.interfaces[out, judge.MAC], tag, kind)
        meta.flags = meta.flags & ~VLAN
        return state.interfaces[out, judge.PORT]  # type: ignore[no-any-return]
    if action == judge.REPLY:  # the tag stays as it is
        set_field(frame, 0, 6, sender)
        set_field(frame, 6, 6, own)
        return meta.port  # type: ignore[no-any-return]
    if (
        action == judge.ERROR
        and judge.may_complain(frame, h, group)
        and allowed(state, here, h, now)
    ):
        tag = state.interfaces[here, judge.TAG]
        start = 18 if tag else 14
        room = say.ERROR4 if h.version == 4 else say.ERROR6
        quoted = min(h.end - h.l3, say.QUOTED4 if h.version == 4 else say.QUOTED6)
        front = start + room - h.l3
        frame = resize(meta, front, h.l3 + quoted - meta.length)
        write_error(frame, state, here, h.version, sender, icmp, extra, quoted)
        meta.flags = meta.flags & ~VLAN
        return meta.port  # type: ignore[no-any-return]
    if action == judge.ADVERTISE:
        start = 18 if state.interfaces[here, judge.TAG] else 14
        frame = resize(meta, 0, start + 40 + say.ND_BYTES - meta.length)
        write_advertisement(frame, state, here, sender, (h.src_high, h.src), (high, low))
        meta.flags = meta.flags & ~VLAN
        return meta.port  # type: ignore[no-any-return]
    return reasons[reason]  # type: ignore[no-any-return]


@helper
def count_down(frame: Any, h: Any) -> None:
    """Take one from the time to live or the hop limit."""
    if h.version == 4:
        before = field(frame, h.l3 + 8, 2)
        set_field(frame, h.l3 + 8, 2, before - 0x100)
        update_checksum(frame, h.l3 + 10, before, before - 0x100)
    else:
        set_field(frame, h.l3 + 7, 1, field(frame, h.l3 + 7, 1) - 1)


@helper
def allowed(state: Any, here: Any, h: Any, now: Any) -> Any:
    """Whether an ICMP error may be sent now: a token bucket, and an own address to send it from."""
    if state.token == 0 or (h.version == 4 and state.interfaces[here, judge.SOURCE4] == 0):
        return False
    full = max(state.full[0], now) + state.token
    if full - now > BURST * state.token:
        return False
    state.full[0] = full
    return True


@helper
def request_size(state: Any, out: Any, kind: Any) -> Any:
    """Bytes of a request for the MAC address of a neighbour."""
    tag = 4 if state.interfaces[out, judge.TAG] else 0
    return tag + (ARP_FRAME if kind == say.IPV4 else 14 + 40 + say.ND_BYTES)


@helper
def write_request(frame: Any, state: Any, out: Any, row: Any, high: Any, low: Any) -> None:
    """An ARP request, or a neighbour solicitation to the group of the address (RFC 4861 7.2.2)."""
    own, tag = state.interfaces[out, judge.MAC], state.interfaces[out, judge.TAG]
    if high == 0 and low >> 32 == 0xFFFF:
        at = say.write_ethernet(frame, say.BROADCAST, own, tag, say.ARP)
        address = low & 0xFFFFFFFF
        say.write_arp(frame, at, 1, own, state.hops[row, SOURCE], 0, address)
        state.said[judge.ARP_REQUEST] += 1
        return
    group = say.SOLICITED_LOW | low & 0xFFFFFF
    mac = 0x333300000000 | group & 0xFFFFFFFF  # RFC 2464, section 7
    at = say.write_ethernet(frame, mac, own, tag, say.IPV6)
    source = judge.FE80, state.interfaces[out, judge.LOCAL_LOW]
    to = say.ALL_NODES_HIGH, group
    say.write_nd(frame, at, say.SOLICITATION, 0, source, to, (high, low), own)
    state.said[judge.SOLICITED] += 1


@helper
def write_advertisement(
    frame: Any, state: Any, here: Any, sender: Any, asker: Any, subject: Any
) -> None:
    """The answer to a solicitation, to all nodes when the asker has no address yet (RFC 4861
    7.2.4)."""
    own, tag = state.interfaces[here, judge.MAC], state.interfaces[here, judge.TAG]
    flags, to, mac = say.ROUTER_SOLICITED_OVERRIDE, asker, sender
    if asker[0] == 0 and asker[1] == 0:
        flags, mac = say.ROUTER_OVERRIDE, 0x333300000001
        to = say.ALL_NODES_HIGH, say.ALL_NODES_LOW
    at = say.write_ethernet(frame, mac, own, tag, say.IPV6)
    say.write_nd(frame, at, say.ADVERTISEMENT, flags, subject, to, subject, own)
    state.said[judge.ADVERTISED] += 1


@helper
def write_error(
    frame: Any,
    state: Any,
    here: Any,
    version: Any,
    sender: Any,
    icmp: Any,
    extra: Any,
    quoted: Any,
) -> None:
    """An ICMP error to where the packet came from."""
    row = state.interfaces[here]
    kind = say.IPV4 if version == 4 else say.IPV6
    at = say.write_ethernet(frame, sender, row[judge.MAC], row[judge.TAG], kind)
    if version == 4:
        say.error4(frame, at, icmp >> 8, icmp & 255, extra, row[judge.SOURCE4], quoted)
    else:
        high, low = row[judge.SOURCE6_HIGH], row[judge.SOURCE6_LOW]
        say.error6(frame, at, icmp >> 8, icmp & 255, extra, high, low, quoted)
    state.said[judge.ICMP_ERROR] += 1
