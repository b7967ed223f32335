"""The compiled module: `ffi` knows the declared types, `lib` holds the functions.

`lib.rl_define_frame()` adds `Frame`, which is in C (loop/packet.c)."""

from typing import Any, Self

ffi: Any
lib: Any

class Frame:
    """What a plugin uses for each packet: the base of Packet in batch.py."""

    def __new__(cls, worker: int, view: memoryview, index: int) -> Self:
        """`worker` is the address of a `struct rl_worker`, `view` is packet memory."""

    @property
    def data(self) -> memoryview: ...
    @data.setter
    def data(self, data: bytes | bytearray | memoryview) -> None: ...
    @property
    def length(self) -> int: ...
    @property
    def port(self) -> int: ...
    @property
    def verdict(self) -> int: ...
    @verdict.setter
    def verdict(self, verdict: int) -> None: ...
