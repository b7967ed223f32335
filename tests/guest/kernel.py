"""A kernel of Debian for guests: downloaded once, unpacked, and never installed.

The package stays outside of the checkout, in ~/.cache/ringline-guest, or in the folder that
RINGLINE_GUEST_CACHE names. So a kernel of this Debian can be tried on a machine with another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "linux-image-amd64"  # it depends on the newest kernel of this Debian
INIT = Path(__file__).with_name("init.c")
LIMIT = 600.0  # seconds: for one tool of the set-up
# What guests may load; the rest of the package (350 MB) is not unpacked. The file `kept` beside a
# kernel says with which pattern it was unpacked.
KEPT = re.compile(
    r"kernel/(crypto|drivers/(char|dca|i2c|net|pps|ptp|uio|vfio|virtio)|fs|lib|net|virt)/.*\.ko$"
)
_XZ, _ZSTD = b"\xfd7zXZ\0", b"(\xb5/\xfd"


class Missing(Exception):
    """Something that guests need is missing; the text says what, and what to do."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: `release` as `uname -r` says it, the image, and the modules by name."""

    release: str
    image: Path
    modules: dict[str, Path]

    @property
    def version(self) -> tuple[int, int]:
        """Its first two numbers, such as (6, 1)."""
        numbers = re.findall(r"\d+", self.release)
        return int(numbers[0]), int(numbers[1])

    def in_order(self, names: Iterable[str]) -> list[str]:
        """These modules and all that they depend on, each behind those. What is no module is
        built into the kernel, or cannot be loaded: then the guest says so."""
        found: list[str] = []

        def visit(name: str) -> None:
            name = name.replace("-", "_")
            if name in found or name not in self.modules:
                return
            for other in _dependencies(self.modules[name]):
                visit(other)
            found.append(name)

        for name in names:
            visit(name)
        return found


def cache() -> Path:
    """The folder of the kernels."""
    if given := os.environ.get("RINGLINE_GUEST_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ringline-guest"


def kernel() -> Kernel:
    """The newest kernel in the cache that was unpacked with the modules of KEPT. Raises Missing."""
    return newest(cache(), "needs a kernel for guests; run: python -m tests.guest --prepare")


def newest(folder: Path, otherwise: str) -> Kernel:
    """The newest kernel in `folder` that was unpacked with the modules of KEPT. Raises Missing with
    the text `otherwise` when there is none."""
    found = [path.parent for path in folder.glob("*/kept") if path.read_text() == KEPT.pattern]
    if not found:
        raise Missing(otherwise)
    newest = max(found, key=lambda path: [int(each) for each in re.findall(r"\d+", path.name)])
    modules = {path.stem.replace("-", "_"): path for path in (newest / "modules").glob("*.ko")}
    return Kernel(newest.name, newest / "vmlinux", modules)


def prepare() -> Kernel:
    """Download and unpack a kernel unless there is one. Raises Missing."""
    with contextlib.suppress(Missing):
        return kernel()
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"needs a kernel for guests, and {tool} to get it from Debian")
    cache().mkdir(parents=True, exist_ok=True)
    with locked():
        with contextlib.suppress(Missing):
            return kernel()  # another process was faster
        with tempfile.TemporaryDirectory(dir=cache()) as name:
            _download(Path(name))
    return kernel()


def init() -> Path:
    """The program that is process 1 of a guest, compiled. Raises Missing."""
    source = INIT.read_bytes()
    program = cache() / f"init-{hashlib.sha256(source).hexdigest()[:16]}"
    if not program.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise Missing("needs a C compiler, for process 1 of guests")
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache(), delete=False) as new:
            made = Path(new.name)
        try:
            tool(compiler, "-O2", "-static", "-o", str(made), str(INIT))
            made.chmod(0o755)
            made.replace(program)
        finally:
            made.unlink(missing_ok=True)
    return program


def archive(kernel: Kernel, modules: Iterable[str]) -> bytes:
    """The initial file system of a guest, as a cpio archive in the form "newc" (the kernel's
    Documentation/driver-api/early-userspace/buffer-format.rst)."""
    made = b""
    for folder in ("dev", "proc", "sys", "modules"):
        made += _entry(folder, stat.S_IFDIR | 0o755)
    made += _entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    made += _entry("init", stat.S_IFREG | 0o755, init().read_bytes())
    for name in modules:
        content = kernel.modules[name].read_bytes()
        made += _entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, content)
    return made + _entry("TRAILER!!!", 0)


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    numbers = [0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _download(folder: Path) -> None:
    asked = tool("apt-cache", "depends", PACKAGE)
    package = re.search(r"Depends: (linux-image-\S+)", asked)
    if package is None:
        raise Missing(f"needs the package {PACKAGE} of Debian, which apt does not know")
    tool("apt-get", "-qq", "download", package[1], cwd=folder)
    keep(list(folder.glob("*.deb")), package[1].removeprefix("linux-image-"), cache())


def keep(packages: Iterable[Path], release: str, where: Path) -> None:
    """Unpack the image and the modules that are in these packages, into a folder of `where`. Raises
    Missing."""
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name, release)
        (folder / "modules").mkdir(parents=True)
        packed = b""
        for package in packages:
            packed = _unpack(package, folder / "modules") or packed
        # The decompressed image starts twice as fast as the packed one.
        (folder / "vmlinux").write_bytes(_image(packed))
        (folder / "kept").write_text(KEPT.pattern)
        with contextlib.suppress(FileNotFoundError):  # the same kernel, with other modules
            (where / release).rename(Path(name, "before"))
        folder.rename(where / release)


def _unpack(package: Path, modules: Path) -> bytes:
    """Unpack the modules of a package. Returns the packed image; b"" when the package has none."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    packed = b""
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as content,
    ):
        for member in content:
            name = Path(member.name).name
            if name.startswith("vmlinuz") and member.isfile():
                packed = _read(content, member)
            elif KEPT.search(member.name.removesuffix(".xz")):
                data = _read(content, member)
                data = lzma.decompress(data) if name.endswith(".xz") else data
                (modules / name.removesuffix(".xz")).write_bytes(data)
    return packed


def _image(packed: bytes) -> bytes:
    """The image inside a kernel that is packed with xz or zstd. Raises Missing."""
    if (begin := packed.find(_XZ)) >= 0:
        return lzma.LZMADecompressor().decompress(packed[begin:])
    for found in re.finditer(re.escape(_ZSTD), packed):  # the program that unpacks it has this too
        if shutil.which("zstd") is None:
            raise Missing("needs zstd (Debian package zstd), to unpack a kernel")
        # zstd writes the image, and then complains of what follows it.
        done = subprocess.run(
            ["zstd", "-dcq"],
            input=packed[found.start() :],
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        if done.stdout.startswith(b"\x7fELF"):
            return done.stdout
    raise Missing("needs a kernel that is packed with xz or zstd; this one is packed otherwise")


def _read(content: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = content.extractfile(member)
    assert stream is not None
    return stream.read()


def _dependencies(module: Path) -> list[str]:
    found = re.search(rb"(?:^|\0)depends=([^\0]*)\0", module.read_bytes())
    return [each for each in found[1].decode().split(",") if each] if found else []


def tool(*command: str, cwd: Path | None = None) -> str:
    """The output of a command. Raises Missing with its last line when it fails."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Missing(f"needs {' '.join(command[:3])} to work: {last}")
    return done.stdout


@contextlib.contextmanager
def locked() -> Iterator[None]:
    with open(cache() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
