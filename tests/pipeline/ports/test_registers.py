"""Register tables and registers, over a fake register file that is a dictionary."""

from __future__ import annotations

import pytest

from ringline.pipeline.ports.registers import Registers, table
from ringline.shm.errors import Bug, HardwareError

TABLE = table("""\
# Comments and empty lines are ignored.

CTRL     0x0000  -         RW    device control | DISABLE 2, MODE 15:13, RST 26
STATUS   0x0008  -         RO    device status | READY 19
MASK     0x0888  -         WO    interrupt mask
RXDCTL   0x1028  +0x40*4   RW    receive queue control | ENABLE 25
ADDRESS  0x5400  -         RW64  receive address | MAC 47:0, VALID 63
GPRC     0x4074  -         RC    good packets
GORC     0x4088  -         RC64  good bytes
QPRC     0x1030  +0x40*2   RC    packets of a queue
""")


class Memory:
    """Registers that keep what was written; with `clears` a read clears counters."""

    def __init__(self, clears: bool = False) -> None:
        self.read_clears = clears
        self.words: dict[int, int] = {}
        self.log: list[tuple[int, int]] = []
        self.on_relax = lambda: None

    def read32(self, address: int) -> int:
        value = self.words.get(address, 0)
        if self.read_clears and address >= 0x1030:
            self.words[address] = 0
        return value

    def write32(self, address: int, value: int) -> None:
        assert 0 <= value < 1 << 32
        self.words[address] = value
        self.log.append((address, value))

    def pointer(self, address: int) -> int:
        return address

    def relax(self) -> None:
        self.on_relax()

    def close(self) -> None:
        pass


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def registers(memory: Memory) -> Registers:
    return Registers(memory, TABLE, "port wan")


def test_set_and_clear_change_only_the_named_bits(memory: Memory, registers: Registers) -> None:
    memory.words[0] = 0xF0000001
    registers.CTRL.set("DISABLE", "RST")
    assert memory.words[0] == 0xF4000005
    registers.CTRL.clear("DISABLE")
    assert memory.words[0] == 0xF4000001


def test_update_writes_fields_and_write_begins_with_zero(
    memory: Memory, registers: Registers
) -> None:
    memory.words[0] = 0xFFFFFFFF
    registers.CTRL.update(MODE=2)
    assert memory.words[0] == 0xFFFF5FFF
    registers.CTRL.write(MODE=5, RST=1)
    assert memory.words[0] == 0x0400A000
    assert registers.CTRL.field("MODE") == 5


def test_an_array_has_its_registers_at_their_distance(memory: Memory, registers: Registers) -> None:
    registers.RXDCTL[3].set("ENABLE")
    assert memory.words == {0x1028 + 3 * 0x40: 1 << 25}
    assert [register.name for register in registers.RXDCTL] == [f"RXDCTL[{n}]" for n in range(4)]
    assert registers.RXDCTL[3].pointer() == 0x10E8
    with pytest.raises(IndexError):
        registers.RXDCTL[4]


def test_a_pair_is_one_register_of_64_bits(memory: Memory, registers: Registers) -> None:
    registers.ADDRESS.write(MAC=0x060504030201, VALID=1)
    assert memory.words == {0x5400: 0x04030201, 0x5404: 0x80000605}
    assert registers.ADDRESS.field("MAC") == 0x060504030201


@pytest.mark.parametrize(
    "misuse",
    [
        lambda r: r.STATUS.write(1),
        lambda r: r.GPRC.write(1),
        lambda r: r.MASK.read(),
        lambda r: r.RXDCTL.read(),
        lambda r: r.RXDCTL.write(0),
        lambda r: r.CTRL.write(MODE=8),
        lambda r: r.CTRL.write(MODE=-1),
        lambda r: r.CTRL.set("NOTHING"),
    ],
    ids=[
        "write RO",
        "write a counter",
        "read WO",
        "read an array",
        "write an array",
        "too large",
        "negative",
        "no such field",
    ],
)
def test_what_a_register_does_not_do_is_a_bug_and_writes_nothing(
    memory: Memory, registers: Registers, misuse
) -> None:
    with pytest.raises(Bug):
        misuse(registers)
    assert memory.log == []


def test_a_register_that_is_not_in_the_table_is_named(registers: Registers) -> None:
    with pytest.raises(AttributeError, match="NOWHERE"):
        _ = registers.NOWHERE


def test_a_counter_that_reading_clears_adds_up(registers: Registers, memory: Memory) -> None:
    memory.read_clears = True
    for arrived in (5, 0, 0xFFFFFFFF, 7):
        memory.words[0x4074] = arrived
        registers.GPRC.read()
    assert registers.GPRC.total == 5 + 0xFFFFFFFF + 7
    memory.words[0x4088], memory.words[0x408C] = 3, 2
    assert registers.GORC.read() == 3 + (2 << 32)
    assert registers.GORC.read() == 3 + (2 << 32)


def test_a_counter_of_plain_memory_adds_up_to_the_same(
    registers: Registers, memory: Memory
) -> None:
    for value in (5, 5, 0xFFFFFFFF, 3):  # it wraps
        memory.words[0x4074] = value
        registers.GPRC.read()
    assert registers.GPRC.total == 0x100000003
    memory.words[0x4088], memory.words[0x408C] = 0xFFFFFFF0, 1
    assert registers.GORC.read() == 0x1FFFFFFF0
    memory.words[0x4088] = 5  # the carry is not there yet
    assert registers.GORC.read() == 0x1FFFFFFF0
    memory.words[0x408C] = 2
    assert registers.GORC.read() == 0x200000005


@pytest.mark.parametrize("clears", [True, False])
def test_a_counter_begins_again_at_zero(clears: bool) -> None:
    memory = Memory(clears)
    registers = Registers(memory, TABLE, "port wan")
    memory.words[0x4074] = 9
    registers.GPRC.read()
    registers.GPRC.restart()
    assert registers.GPRC.total == 0
    memory.words[0x4074] = memory.words.get(0x4074, 0) + 4
    assert registers.GPRC.read() == 4


def test_a_counter_that_a_reset_cleared_starts_again(registers: Registers, memory: Memory) -> None:
    memory.words[0x408C] = 5
    registers.GORC.read()
    memory.words[0x408C] = 0
    registers.GORC.restart()
    memory.words[0x4088] = 7
    assert registers.GORC.read() == 7


def test_the_sum_of_an_array_and_the_list_of_counters(registers: Registers, memory: Memory) -> None:
    memory.words[0x1030], memory.words[0x1070] = 4, 6
    assert registers.QPRC.sum() == 10
    assert [one.name for one in registers.counters()] == ["GPRC", "GORC", "QPRC[0]", "QPRC[1]"]


def test_a_wait_ends_when_the_field_has_the_value(registers: Registers, memory: Memory) -> None:
    polls = iter(range(3))
    memory.on_relax = lambda: memory.words.update({8: 1 << 19}) if next(polls) == 2 else None
    registers.STATUS.wait("READY", 1, 5.0)
    assert list(polls) == []


def test_a_wait_that_fails_names_register_field_and_both_values(registers: Registers) -> None:
    with pytest.raises(HardwareError) as caught:
        registers.STATUS.wait("READY", 1, 0.01)
    for part in (
        "port wan: ",
        "STATUS.READY",
        "to become 1",
        "it is 0",
        "device status",
        "0x00008",
        "0.01 s",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ["CTRL 0x0 - RW", "ctrl 0x0 - RW x", "CTRL 0 - RW x", "CTRL 0x0 +4 RW x", "CTRL 0x0 - XX x",
     "CTRL 0x0 - RW x | 3 FIELD", "A 0x0 - RW x\nA 0x4 - RW x"],
)  # fmt: skip
def test_an_invalid_table_is_refused(line: str) -> None:
    with pytest.raises(Bug):
        table(line)


def test_the_end_of_a_register_is_the_size_that_its_bar_needs() -> None:
    assert TABLE["CTRL"].end == 4
    assert TABLE["GORC"].end == 0x4090
    assert TABLE["RXDCTL"].end == 0x1028 + 3 * 0x40 + 4
