"""Missing or full resources: exit code 3, a message with the remedy, and nothing left."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .operator_harness import ONE_QUEUE, TIMEOUT, Operator, as_nobody, in_mount_namespace

pytestmark = pytest.mark.slow

MIXED = Path(__file__).parents[1] / "data" / "mixed.pcap"
FOREVER = ONE_QUEUE + "wire = { flows = {}, rate_mpps = 0.01 }\n"
REQUIRED = ONE_QUEUE.replace('hugepages = "off"', 'hugepages = "require"')
BRIEFLY = ("--for", "0.2")


@pytest.fixture
def config(operator: Operator) -> Path:
    return operator.write(FOREVER)


# -- other instances ------------------------------------------------------------------------


def test_an_instance_that_runs_already_is_refused_and_another_is_not(
    operator: Operator, config: Path
) -> None:
    other = operator.write(FOREVER.replace("NAME", f"{operator.name}-b"), "other.toml")
    with operator.serving(config) as first:
        told = f"the instance '{operator.name}' already runs: process {first.pid} holds /dev/shm/"
        assert operator.refused(3, "run", config, keep_instance=True).startswith(told)
        for command in (("run", other, *BRIEFLY), ("check", config)):
            ended = operator.run(*command, keep_instance=True)
            assert ended.code == 0, ended.errors
        assert first.poll() is None
    assert first.returncode == 0


def test_a_killed_instance_does_not_block_the_next(operator: Operator, config: Path) -> None:
    with operator.serving(config) as first:
        first.kill()
        first.wait(TIMEOUT)
        assert "no instance" in operator.refused(3, "status", operator.name, keep_instance=True)
        ended = operator.run("run", config, *BRIEFLY)
        assert ended.code == 0, ended.errors


# -- shared memory --------------------------------------------------------------------------

EMPTY = 'test -z "$(ls -A /dev/shm)" || exit 99'  # checked in the namespace after the command
ENLARGE = (
    "free some or enlarge it (mount -o remount,size=1G /dev/shm; for a container: docker run "
    "--shm-size=1g; in Kubernetes an emptyDir with medium Memory, mounted at /dev/shm)"
)
MEMORY = {
    "too small": (
        "mount -t tmpfs -o size=1m none /dev/shm",
        "/dev/shm is too full for /dev/shm/ringline.NAME.packets: ",
        ENLARGE,
    ),
    "too small for the last segment": (
        "mount -t tmpfs -o size=9m none /dev/shm",
        "/dev/shm is too full for /dev/shm/ringline.NAME.worker.0: ",
        ENLARGE,
    ),
    "without inodes": (
        "mount -t tmpfs -o nr_inodes=4 none /dev/shm",
        "/dev/shm/ringline.NAME.worker.0 cannot be created: ",
        "No space left on device: make room",
    ),
    "not writable": (
        "mount -t tmpfs -o ro none /dev/shm",
        "/dev/shm is not writable for user 0, so /dev/shm/ringline.NAME.descriptors cannot be ",
        "Read-only file system",
    ),
    "taken by a folder": (
        "mount -t tmpfs none /dev/shm; mkdir /dev/shm/ringline.NAME.packets",
        "/dev/shm/ringline.NAME.packets is in the way: it is a folder, which no run of ringline ",
        "remove it (rm -r /dev/shm/ringline.NAME.packets), or give this instance another name",
    ),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_shared_memory_that_is_too_small_or_not_usable(
    operator: Operator, config: Path, kind: str
) -> None:
    mount, begin, end = (part.replace("NAME", operator.name) for part in MEMORY[kind])
    afterwards = "rmdir /dev/shm/* 2>/dev/null || true; " + EMPTY
    sentence = operator.refused(
        3, "run", config, within=in_mount_namespace(mount, afterwards=afterwards)
    )
    assert sentence.startswith(begin)
    assert sentence.endswith(end)


def test_a_machine_without_shared_memory(operator: Operator, config: Path) -> None:
    devices = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3"
    assert operator.refused(3, "run", config, within=in_mount_namespace(devices)) == (
        f"/dev/shm/ringline.{operator.name}.descriptors cannot be created: there is no /dev/shm; "
        "mount a tmpfs there"
    )


def test_shared_memory_that_fills_up_later_gives_up_the_worker(operator: Operator) -> None:
    """The rings of a successor find no room: reported, retried, given up; the books balance."""
    config = operator.write(f"{FOREVER}[worker]\nrestart = {{ intensity = 2 }}\n")
    kill_worker = (
        f"ringline status --json {operator.name} | "
        'python3 -c \'import json, sys; worker = json.load(sys.stdin)["workers"][0]; '
        'print(worker["pid"] if worker["state"] == "running" else 0)\''
    )
    script = (
        "mount -t tmpfs -o size=16m none /dev/shm\n"
        '"$@" & run=$!\n'
        f"until pid=$({kill_worker} 2>/dev/null) && [ $pid -gt 0 ]; do sleep 0.1; done\n"
        "head -c 16000000 /dev/zero > /dev/shm/full 2>/dev/null || true\n"
        "kill -KILL $pid; code=0; wait $run || code=$?\n"
        f"rm /dev/shm/full; {EMPTY}; exit $code\n"
    )
    ended = operator.run(
        "run", config, "--report", "report.json", within=in_mount_namespace(script)
    )
    assert ended.code == 4
    assert f"/dev/shm is too full for /dev/shm/ringline.{operator.name}.rings.0." in ended.errors
    assert ended.last == "the workers of all queues were given up; see above"
    report = json.loads((operator.folder / "report.json").read_text())
    assert not any(report["balance"].values()), report["balance"]


def test_required_hugepages_that_are_missing(operator: Operator) -> None:
    """Asks for more than any machine has, so existing hugepages do not matter."""
    config = operator.write("memory.buffers = 16777216\n" + REQUIRED)
    mounts = "awk '$3 == \"hugetlbfs\" { print $2 }' /proc/mounts"
    unmount = f"for mount in $({mounts}); do umount -l $mount; done"
    for within in ([], in_mount_namespace(unmount)):
        sentence = operator.refused(3, "run", config, within=within)
        assert sentence.startswith('hugepages = "require", but ')
        assert sentence.endswith(
            "no hugetlbfs is mounted; mount one (mount -t hugetlbfs none /dev/hugepages)"
        ) or re.search(r"of 2 MiB are needed and \d+ of \d+ are free \(sysctl -w vm.nr_", sentence)


def test_hugepages_of_which_none_is_free(operator: Operator) -> None:
    free = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages")
    if not free.exists() or int(free.read_text()):
        pytest.skip("needs a kernel with hugepages of 1 GiB, and none reserved")
    config = operator.write(REQUIRED)
    (operator.folder / "huge").mkdir()
    mount = "umount -l -a -t hugetlbfs; mount -t hugetlbfs -o pagesize=1G none huge"
    sentence = operator.refused(3, "run", config, within=in_mount_namespace(mount))
    assert "of 1 GiB are needed and 0 of 0 are free (echo " in sentence


# -- ports, reports, folders and limits --------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    """A TCP port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def listening_on(where: str) -> str:
    return FOREVER.replace('listen = "off"', f'listen = "{where}"')


def test_a_metrics_port_that_is_taken(operator: Operator, taken: int) -> None:
    config = operator.write(listening_on(f"127.0.0.1:{taken}"))
    assert operator.refused(3, "run", config) == (
        f"metrics.listen: 127.0.0.1:{taken} is taken by another program; choose another port, "
        '0 for any free one, or "off"'
    )


def test_a_metrics_address_that_is_not_this_machines(operator: Operator) -> None:
    config = operator.write(listening_on("192.0.2.1:9464"))
    assert operator.refused(3, "run", config) == (
        "metrics.listen: cannot listen on 192.0.2.1:9464: Cannot assign requested address; name an "
        "address of this machine that is up (in a new network namespace, ip link set lo up gives "
        "it 127.0.0.1), or 0.0.0.0 for all of them"
    )


@pytest.mark.parametrize("report", ["none/report.json", "."])
def test_a_report_that_cannot_be_written_is_refused(
    operator: Operator, config: Path, report: str
) -> None:
    sentence = operator.refused(2, "run", config, "--report", report)
    assert sentence.startswith(f"the report cannot be written to {report}: ")


@pytest.mark.parametrize("old", ["", '{"ringline": "0.1.0", "name": "old", "state": "ended"}\n'])
def test_a_report_without_room_leaves_the_old_one_and_the_summary(
    operator: Operator, config: Path, old: str
) -> None:
    folder = operator.folder / "small"
    folder.mkdir()
    within = in_mount_namespace(
        "mount -t tmpfs -o size=8k none small",
        f"[ -z '{old}' ] || echo '{old.strip()}' > small/report.json",
        "head -c 8192 /dev/zero > small/full 2>/dev/null || true",
        afterwards="cp small/report.json kept || true",
    )
    ended = operator.run(
        "run", config, *BRIEFLY, "--report", "small/report.json", within=within, other_output=True
    )
    assert ended.code == 3
    told = "the report cannot be written to small/report.json: No space left on device: make room"
    assert told in ended.sentences
    assert "balance: 0 in all" in ended.out
    kept = operator.folder / "kept"
    assert (kept.read_text() if kept.exists() else "") == old


STATUS_FOLDERS = {
    "not writable": ("mount -t tmpfs -o ro none /run", "cannot be made: Read-only file system"),
    "a file": ("mount -t tmpfs none /run; touch /run/ringline", "cannot be made: Not a directory"),
    "open to all": (
        "mount -t tmpfs none /run; mkdir -m 777 /run/ringline",
        "/run/ringline can be written by other users (its mode is 0777); the status socket is ",
    ),
}


@pytest.mark.parametrize("kind", STATUS_FOLDERS)
def test_a_folder_for_the_status_socket_that_cannot_be_used(
    operator: Operator, config: Path, kind: str
) -> None:
    mount, told = STATUS_FOLDERS[kind]
    within, variables = in_mount_namespace(mount), {"RUNTIME_DIRECTORY": None}
    assert told in operator.refused(3, "run", config, within=within, environment=variables)
    variables = {"RUNTIME_DIRECTORY": str(operator.folder)}
    ended = operator.run("run", config, *BRIEFLY, within=within, environment=variables)
    assert ended.code == 0, ended.errors


# The number decides which of the descriptors of a start is the first that is missing.
DESCRIPTORS = "raise the limit (ulimit -n)"
LIMITS = {
    f"--nofile={number}": DESCRIPTORS for number in (8, 10, 12, 13, 14, 16, 18, 20, 22, 25, 26)
}
LIMITS["--fsize=1000000"] = "File too large"


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_too_low(operator: Operator, config: Path, limit: str) -> None:
    ended = operator.run("run", config, *BRIEFLY, within=["prlimit", limit])
    assert ended.code == 3, ended.errors
    assert LIMITS[limit] in ended.last
    assert "None" not in ended.last
    assert "are free in" not in ended.last, "room is not what is missing"


@pytest.mark.parametrize("command", ["check", "try"])
def test_plugin_state_that_does_not_fit_in_memory_is_reported(
    operator: Operator, command: str
) -> None:
    config = operator.write(ONE_QUEUE + '[worker]\nstate = "8 GiB"\n')
    arguments = [config] if command == "check" else ["forward", MIXED, "--state", str(64 << 20)]
    ended = operator.run(command, *arguments, within=["prlimit", f"--as={60 << 20}"])
    assert ended.code == {"check": 2, "try": 3}[command]
    assert " bytes for the state of a plugin cannot be allocated: Cannot allocate" in ended.last


# -- other users --------------------------------------------------------------------------------


def test_a_user_without_privileges_can_run(open_operator: Operator) -> None:
    config = open_operator.write(FOREVER)
    within = as_nobody() if os.geteuid() == 0 else []
    variables = {"XDG_RUNTIME_DIR": None, "HOME": None}
    ended = open_operator.run("run", config, *BRIEFLY, within=within, environment=variables)
    assert ended.code == 0, ended.errors
    assert "balance: 0 in all" in ended.out


def test_an_instance_of_another_user_is_reported(open_operator: Operator) -> None:
    config = open_operator.write(FOREVER)
    name = open_operator.name
    other = {"within": as_nobody(), "keep_instance": True}
    with open_operator.serving(config):
        for command in ("status", "top"):
            sentence = open_operator.refused(3, command, name, **other)
            assert sentence == f"instance {name} belongs to user root: only that user can ask it"
        sentence = open_operator.refused(3, "run", config, **other)
        assert sentence.endswith(" belongs to user root: give this instance another name")
