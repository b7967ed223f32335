"""Segments: named shared memory with a header that says whose it is.

A segment is a file of POSIX shared memory or of a hugetlbfs, named
`/ringline.<instance>.<what>`. The supervisor creates it and holds an exclusive
flock on it for as long as it lives; every other process gets a descriptor of
its own open file description, without the lock. So a segment whose lock can be
had is stale, whatever is in it.

Guarantees (tests in tests/shm/test_segments.py):
 - only the user can open a segment, whatever the umask
   (test_created_0600_whatever_the_umask)
 - a segment that could be created is backed by memory to its last byte
   (test_full_shared_memory_is_an_error_and_leaves_nothing)
 - of two supervisors that race for one instance, one gets it
   (test_racing_creators_never_share, in test_owners.py)
 - what attach returns has been checked: magic, layout, kind, size
   (test_attach_refuses_what_is_not_a_segment)
 - a header that another process spoiled does not keep anybody out who knows what
   the segment is (test_a_spoiled_header_is_not_needed)
 - what is known of a mapped segment stays, whatever is written into its header
   (test_a_header_that_is_overwritten_changes_nothing)
 - after close nothing is left open or mapped (test_nothing_is_left_open)

Assumption: /dev/shm and hugetlbfs mounts are local, so that flock means something.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from ringline.shm._shm import ffi, lib
from ringline.shm.creation import create_locked, no_room
from ringline.shm.errors import Bug, EnvironmentLacks
from ringline.shm.header import (
    addresses_in,
    check_instance,
    read_header,
    set_addresses,
    write_header,
)
from ringline.shm.layout import layout_hash
from ringline.shm.owners import SHARED_MEMORY, live_owner, remove_file, remove_stale, segments_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["Segment", "live_owner", "remove_stale", "segments_of"]


class Segment:
    """A mapped segment. A context manager: leaving it closes, and unlinks what was created.

    `name` is `/ringline.<instance>.<what>`, `path` its file, `size` its bytes in
    whole pages, `used` the bytes asked for (both with the header), `kind` one of
    RL_SEGMENT_*, `generation` the one that the creator gave, `fd` its descriptor,
    `address` where it is mapped, `memory` a writable view of it all. None of them is
    read from the header later: a worker may write into that of a segment it has.
    Addresses end with `close()`; a view that somebody still holds then keeps the
    mapping, so that using it late is never a crash. `remark` says what an operator
    may not expect: why it is not on the hugepages that are reserved.
    """

    remark = ""

    def __init__(
        self, fd: int, path: str, size: int, *, kind: int, used: int, generation: int, owner: bool
    ) -> None:
        self._map = mmap.mmap(fd, size)
        with ffi.from_buffer(self._map) as start:
            self.address = int(ffi.cast("uintptr_t", start))
        self.fd = fd
        self.path = path
        self.size = size
        self.kind = kind
        self.used = used
        self.generation = generation
        self.memory = memoryview(self._map)
        self._owner = owner
        self._header = self.at("struct rl_segment_header *")
        self._status = os.fstat(fd)

    @classmethod
    def create(
        cls,
        instance: str,
        what: str,
        size: int,
        *,
        kind: int,
        generation: int = 0,
        hugepage_mount: str | None = None,
        pci: Sequence[str] = (),
    ) -> Segment:
        """Create, lock and map a segment of at least `size` bytes, its header included.

        `kind` is one of RL_SEGMENT_*. All bytes behind the header are zero. With
        `hugepage_mount`, a mounted hugetlbfs, the size is rounded up to its pages.

        Raises EnvironmentLacks when the instance runs already, or when there is
        no room or no permission; nothing is left behind then.
        """
        check_instance(instance)
        path = f"{hugepage_mount or SHARED_MEMORY}/ringline.{instance}.{what}"
        fd = create_locked(instance, path)
        status = os.fstat(fd)
        try:
            page = os.fstatvfs(fd).f_bsize
            whole = -(-size // page) * page
            try:
                # What is missing is an error now, not a SIGBUS later.
                os.posix_fallocate(fd, 0, whole)
                segment = cls(
                    fd, path, whole, kind=kind, used=size, generation=generation, owner=True
                )
            except OSError as error:
                raise no_room(error, path, whole) from None
            segment.set_pci(pci)
            write_header(
                segment.address,
                instance,
                what,
                kind=kind,
                size=whole,
                used=size,
                generation=generation,
            )
        except BaseException:
            remove_file(path, status)
            os.close(fd)
            raise
        return segment

    @classmethod
    def attach(cls, fd: int, *, kind: int | None = None) -> Segment:
        """Map the segment behind `fd`, which is the segment's from here, error or not.

        Raises EnvironmentLacks when it is not a whole segment of this layout,
        Bug when it is not of `kind`. `attach_known` is for what a worker can write.
        """
        try:
            path = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
            size = os.fstat(fd).st_size
            header = read_header(fd)
            if header is None or header.size != size or header.used > size:
                raise EnvironmentLacks(f"{path} is not a whole ringline segment")
            if (header.layout_version, header.layout_hash) != (
                lib.RL_LAYOUT_VERSION,
                layout_hash(),
            ):
                raise EnvironmentLacks(
                    f"{path} was made by another build of ringline (its layout is "
                    f"{header.layout_version}/{header.layout_hash:016x}, this one's "
                    f"{lib.RL_LAYOUT_VERSION}/{layout_hash():016x}): stop everything and start anew"
                )
            if kind is not None and header.kind != kind:
                raise Bug(f"{path} is a segment of kind {header.kind}, not {kind}")
            return cls(
                fd,
                path,
                size,
                kind=header.kind,
                used=header.used,
                generation=header.generation,
                owner=False,
            )
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach_known(cls, fd: int, *, kind: int, used: int) -> Segment:
        """Map a segment of which the caller knows what it is, as `attach` does, but
        whatever its header says: another process may have written there already.

        Raises EnvironmentLacks when it has fewer than `used` bytes.
        """
        try:
            path = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
            size = os.fstat(fd).st_size
            if size < used:
                raise EnvironmentLacks(f"{path} has {size} bytes, and {used} are needed")
            return cls(fd, path, size, kind=kind, used=used, generation=0, owner=False)
        except BaseException:
            os.close(fd)
            raise

    @property
    def name(self) -> str:
        """`/ringline.<instance>.<what>`"""
        return "/" + self.path.rpartition("/")[2]

    @property
    def pci(self) -> list[str]:
        """PCI addresses of devices that may reach this memory."""
        return addresses_in(self._header)

    def set_pci(self, addresses: Sequence[str]) -> None:
        """Note the devices whose bus mastering must be cleared before this memory goes."""
        set_addresses(self._header, addresses)

    def at(self, pointer: str, offset: int = 0) -> Any:
        """The place `offset` bytes into the segment as `pointer`, say `"struct rl_ring *"`.

        Valid until close. Raises Bug when what it points to would not lie inside.
        """
        if self.fd < 0:
            raise Bug(f"{self.path} is closed")
        bytes_ = ffi.sizeof(ffi.typeof(pointer).item)
        if not 0 <= offset <= self.size - bytes_:
            raise Bug(f"{pointer} at {offset} does not lie in the {self.size} bytes of {self.path}")
        return ffi.cast(pointer, self.address + offset)

    def share(self) -> int:
        """A descriptor to pass to a child: a new open file description, without the lock."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)

    def unlink(self) -> None:
        """Remove the name, unless it already belongs to another file. Mappings stay."""
        remove_file(self.path, self._status)

    def close(self) -> None:
        """Unmap, give up the lock and the descriptor. May be called again."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        self.address = 0
        self._header = None
        try:
            self.memory.release()
            self._map.close()
        except BufferError:
            pass  # somebody still holds a view: the mapping goes with the last one
        # The mapping has a copy of the descriptor, which would keep the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owner:
            self.unlink()
        self.close()
