"""The plugin of test_contract.py in Python: the frame's first byte selects the action."""

from __future__ import annotations

from typing import Any

from ringline.workers.api import DROP, VLAN, create, packet_function, resize


@packet_function
def compiled(frame: Any, meta: Any) -> int:
    todo = frame[0]
    if todo == 0:
        return meta.port
    if todo == 1:
        return DROP
    if todo == 2:
        return 1
    if todo == 3:
        raise ValueError("three is refused")
    if todo == 4:
        return 300
    if todo == 5:
        return -1
    if todo == 6:
        return 254
    if todo == 7:
        return 1 << 40
    if todo == 8:
        frame[meta.length - 1] = 0xAA
    if todo == 9:
        longer = resize(meta, 4, 0)
        for i in range(12):
            longer[i] = longer[i + 4]
    if todo == 10:
        made = create(meta, 60, 1)
        if len(made) == 0:
            return DROP
        made[:] = 0x55
    if todo == 11:
        meta.vlan_tci = 7
        meta.flags |= VLAN
    if todo == 12:
        return meta.ports
    return 0


class Packets:
    def process(self, batch: Any) -> None:
        for packet in batch:
            packet.verdict = self.judge(packet, batch)

    def judge(self, packet: Any, batch: Any) -> int:
        todo = packet.data[0]
        if todo == 3:
            raise ValueError("three is refused")
        if todo == 8:
            packet.data[packet.length - 1] = 0xAA
        if todo == 9:
            longer = packet.resize(4, 0)
            longer[:12] = bytes(longer[4:16])
        if todo == 10 and not batch.create(b"\x55" * 60, 1):
            return DROP
        if todo == 11:
            packet.vlan_tci = 7
            packet.flags |= VLAN
        answers = {0: packet.port, 1: DROP, 2: 1, 4: 300, 5: -1, 6: 254, 7: 1 << 40, 12: 2}
        return answers.get(todo, 0)


class Columns:
    """Sets verdicts only, as int64: a verdict must be checked before it is narrowed."""

    def process(self, batch: Any) -> None:
        import numpy as np

        todo = batch.gather(0, "u1").astype(np.int64)
        if (todo == 3).any():
            raise ValueError("three is refused")
        answers = np.zeros(256, np.int64)
        answers[[1, 2, 4, 5, 6, 7, 12]] = [DROP, 1, 300, -1, 254, 1 << 40, 2]
        batch.verdicts[:] = np.where(todo == 0, batch.ports, answers[todo])
