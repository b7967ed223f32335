"""Segments: named shared memory with a header that describes it.

A segment is a file in /dev/shm (POSIX shared memory) or in a hugetlbfs, named
`/ringline.<instance>.<what>`. The supervisor creates it and holds an exclusive flock on it until
it closes the segment or dies. Every other process gets a new open file description without the
lock. So a segment is stale when another process can lock it; its contents do not matter.

Guarantees (tests in tests/shm/test_segments.py):
 - only the owner's user can open a segment, with any umask
   (test_created_0600_whatever_the_umask)
 - a created segment has memory behind every byte
   (test_full_shared_memory_is_an_error_and_leaves_nothing)
 - of two supervisors that race for one instance, at most one gets it
   (tests/shm/test_owners.py: test_racing_creators_never_share)
 - `attach` checks magic, layout, kind and size (test_attach_refuses_what_is_not_a_segment)
 - `attach_known` maps a segment whose header another process has overwritten
   (test_a_spoiled_header_is_not_needed)
 - the attributes of a mapped segment do not change when its header is overwritten
   (test_a_header_that_is_overwritten_changes_nothing)
 - a process that is forked after `withhold_from_forks` does not have the mapping
   (test_a_withheld_segment_is_not_mapped_in_a_forked_process)
 - after `hide_descriptors` this process has no descriptor that could cut the file
   (test_a_hidden_descriptor_cannot_cut_the_file)
 - after close nothing is open or mapped (test_nothing_is_left_open), unless a view still exists
   (test_a_view_that_outlives_its_segment_stays_readable)

Assumption: /dev/shm and hugetlbfs mounts are local file systems, where flock works.
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
    forget_address,
    note_address,
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
    """A mapped segment. A context manager: its end closes the segment, and unlinks it if this
    process created it.

    `name` is `/ringline.<instance>.<what>`, `path` its file, `size` its length in bytes rounded
    up to whole pages, `used` the length that was asked for (both include the header), `kind` one
    of RL_SEGMENT_*, `generation` the number that the creator gave, `fd` its descriptor, `address`
    the address of its first byte in this process, `memory` a writable view of all its bytes.
    No attribute is read from the header after mapping, because workers can write to headers.
    Addresses are valid until `close()`. A view that still exists then keeps the mapping, so a
    late use does not crash. `remark` is a sentence for the operator: why the segment does not
    use the reserved hugepages.
    """

    remark = ""

    def __init__(
        self, fd: int, path: str, size: int, *, kind: int, used: int, generation: int, owner: bool
    ) -> None:
        # The creator has allocated all pages. Mapping them now keeps page faults out of the packet
        # path, and prefetches too: a prefetch of a page that this process has not mapped yet
        # maps nothing, and costs 68 ns each time (AMD EPYC, family 23). Not for a slot: the state
        # of a plugin can be large, and a new worker must not wait for all of it (50 ms a GiB).
        populate = 0 if owner or kind == lib.RL_SEGMENT_SLOT else mmap.MAP_POPULATE
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED | populate)
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
        """Create, lock and map a segment of at least `size` bytes, header included.

        `kind` is one of RL_SEGMENT_*. All bytes after the header are zero.
        `hugepage_mount` is a mounted hugetlbfs: the size is then rounded up to its pages.

        Raises EnvironmentLacks when the instance runs already, or when there is no room or no
        permission. Then nothing is left behind.
        """
        check_instance(instance)
        path = f"{hugepage_mount or SHARED_MEMORY}/ringline.{instance}.{what}"
        fd = create_locked(instance, path)
        status = os.fstat(fd)
        try:
            page = os.fstatvfs(fd).f_bsize
            whole = -(-size // page) * page
            try:
                # Missing memory must be an error here, not a SIGBUS at the first access.
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
        """Map the segment behind `fd` and take over `fd`: it is closed on an error too.

        Raises EnvironmentLacks when it is not a complete segment of this layout,
        Bug when it is not of `kind`. For segments that a worker can write, use `attach_known`.
        """
        try:
            path = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
            size = os.fstat(fd).st_size
            header = read_header(fd)
            if header is None or header.size != size or header.used > size:
                raise EnvironmentLacks(f"{path} is not a complete ringline segment")
            if (header.layout_version, header.layout_hash) != (
                lib.RL_LAYOUT_VERSION,
                layout_hash(),
            ):
                raise EnvironmentLacks(
                    f"{path} was made by another build of ringline (its layout is "
                    f"{header.layout_version}/{header.layout_hash:016x}, the layout of this build "
                    f"{lib.RL_LAYOUT_VERSION}/{layout_hash():016x}): stop the instance and start "
                    "it again"
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
        """Map a segment like `attach`, but trust the caller and not the header, which another
        process may have overwritten.

        Raises EnvironmentLacks when it has fewer than `used` bytes.
        """
        try:
            path = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
            size = os.fstat(fd).st_size
            if size < used:
                raise EnvironmentLacks(f"{path} has {size} bytes, but {used} are needed")
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
        """PCI addresses of the devices that may access this memory."""
        return addresses_in(self._header)

    def set_pci(self, addresses: Sequence[str]) -> None:
        """Write into the header the devices whose bus mastering must be off before this segment
        is removed."""
        set_addresses(self._header, addresses)

    def note_pci(self, address: str) -> None:
        """Add a device to those in the header: before the first write to it."""
        note_address(self._header, address)

    def forget_pci(self, address: str) -> None:
        """Remove a device from those in the header: after its bus mastering was switched off."""
        forget_address(self._header, address)

    def at(self, pointer: str, offset: int = 0) -> Any:
        """A pointer of type `pointer`, such as `"struct rl_ring *"`, to the byte at `offset`.

        Valid until close. Raises Bug when the object does not lie inside the segment.
        """
        if self.fd < 0:
            raise Bug(f"{self.path} is closed")
        bytes_ = ffi.sizeof(ffi.typeof(pointer).item)
        if not 0 <= offset <= self.size - bytes_:
            raise Bug(f"{pointer} at {offset} does not lie in the {self.size} bytes of {self.path}")
        return ffi.cast(pointer, self.address + offset)

    def share(self, *, read_only: bool = False) -> int:
        """A descriptor for a child: a new open file description, without the lock."""
        right = os.O_RDONLY if read_only else os.O_RDWR
        return os.open(f"/proc/self/fd/{self.fd}", right | os.O_CLOEXEC)

    def withhold_from_forks(self) -> None:
        """Leave this mapping out of every process that this one forks from now on: an access
        there ends it with SIGSEGV (madvise(2), MADV_DONTFORK)."""
        self._map.madvise(mmap.MADV_DONTFORK)

    def hide_descriptors(self) -> None:
        """Put /dev/null in place of every descriptor of this file that this process has. The
        mapping stays, and `share` is over.

        If the plugin truncates each descriptor that it finds, the file keeps its length: without
        that, the next access of every process that maps it would end in SIGBUS.
        """
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for name in os.listdir("/proc/self/fd"):
                try:
                    status = os.fstat(int(name))
                except OSError:  # that of the folder itself: it is closed by now
                    continue
                if os.path.samestat(status, self._status):
                    os.dup2(null, int(name), inheritable=False)
        finally:
            os.close(null)

    def unlink(self) -> None:
        """Remove the name, unless it belongs to another file by now. Mappings stay valid."""
        remove_file(self.path, self._status)

    def close(self) -> None:
        """Unmap, unlock and close the descriptor. May be called again."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        self.address = 0
        self._header = None
        try:
            self.memory.release()
            self._map.close()
        except BufferError:
            pass  # a view still exists: the mapping ends with the last one
        # mmap holds a copy of the descriptor, which would keep the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owner:
            self.unlink()
        self.close()
