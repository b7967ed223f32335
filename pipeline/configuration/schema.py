"""The keys of a configuration file with their types, ranges and defaults.

`load` reports every mistake at once, including those that `machine_checks` finds on
this machine.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration import config as c
from ringline.pipeline.configuration import needs
from ringline.pipeline.configuration.card_keys import read_card_keys
from ringline.pipeline.configuration.forms import (
    DEVICES,
    check_device,
    check_listen,
    check_name,
    check_plugin,
    check_rss_key,
    parse_listen,
)
from ringline.pipeline.configuration.interface_keys import read_keys, refuse_keys_of_others
from ringline.pipeline.configuration.levels import PORT, SPECIMEN, advice
from ringline.pipeline.configuration.lines import lines_of, with_line
from ringline.pipeline.configuration.machine_checks import problems_here
from ringline.pipeline.configuration.toml import Table, joined, read_file, shown
from ringline.shm import frames
from ringline.shm.errors import ConfigurationError
from ringline.workers.captures.headers import ETHERNET_MIN

# "imix", a common approximation of Internet traffic: (bytes with CRC, weight).
IMIX = ((64, 7), (594, 4), (1518, 1))
SIZES_WANTED = 'must be "imix", an integer or a list of integers from 64 to {} (bytes with CRC)'
CPU_MAX = 4095
OPTIONS_ARE_BELOW = "; options of the plugin belong to {table}.options"


def load(path: str | os.PathLike[str]) -> c.Config:
    """The configuration in the TOML file at `path`, checked for this machine.

    Raises ConfigurationError with one line per mistake.
    """
    found = examine(path)
    if found.problems:
        raise ConfigurationError(found.problems)
    return found.config


@dataclasses.dataclass(frozen=True)
class Examined:
    """A configuration with its mistakes.

    file: where it was read; None: the arguments of the command say it (`builtin.examine`).
    values: the file as it is.
    config: with the default in place of each wrong value.
    problems: one sentence per mistake, with the file and the line, or the argument.
    paths: the path of each mistake, as in a file.
    lines: the line of each key and table, by its path.
    """

    values: dict[str, Any]
    config: c.Config
    problems: list[str]
    paths: list[str]
    lines: dict[str, int]
    file: Path | None = None


def examine(path: str | os.PathLike[str]) -> Examined:
    """Read the TOML file at `path`. Raises ConfigurationError when it is no TOML file."""
    file = Path(path)
    values, text = read_file(file)
    problems: list[str] = []
    found = read(values, file.absolute().parent, problems)
    problems += problems_here(found)
    if not problems:
        problems += needs.too_few_buffers(found)
    lines = lines_of(text)
    found = dataclasses.replace(found, workers=_with_places(found.workers, lines))
    told = [f"{file}: {with_line(problem, lines)}" for problem in problems]
    paths = [problem.partition(": ")[0] for problem in problems]
    return Examined(values, found, told, paths, lines, file)


def _with_places(
    workers: tuple[c.WorkerConfig, ...], lines: dict[str, int]
) -> tuple[c.WorkerConfig, ...]:
    """The workers with the place of each option in the file: `worker.options.rules in line 9`."""
    placed = []
    for queue, worker in enumerate(workers):
        own = joined(joined("worker", str(queue)), "options")
        table = own if own in lines else "worker.options"
        paths = {name: joined(table, name) for name in worker.options}
        places = {n: f"{path} in line {lines[path]}" for n, path in paths.items() if path in lines}
        placed.append(dataclasses.replace(worker, option_places=places))
    return tuple(placed)


def read(values: dict[str, Any], folder: Path, problems: list[str]) -> c.Config:
    """The configuration in a parsed file; mistakes are added to `problems`.

    Relative paths in the file are relative to `folder`. A wrong value is replaced by its
    default.
    """
    return _read(Table(values, "", problems, elsewhere=_elsewhere), folder, problems)


def _elsewhere(path: str, key: str, value: Any) -> str:
    return advice(_levels(), path, key, value)


@functools.cache
def _levels() -> dict[str, list[str]]:
    """The keys of each table, by its path in SPECIMEN: those that reading it asks for."""
    levels: dict[str, list[str]] = {}
    _read(Table(SPECIMEN, "", [], record=levels), Path(), [])
    return levels


def _read(top: Table, folder: Path, problems: list[str]) -> c.Config:
    name = top.string("name", "ringline", check=check_name)
    memory = _memory(top.table("memory"), problems)
    ports = _ports(top.table("port", "[port.NAME] for each port"), folder, problems)
    queues = max((port.queues for port in ports), default=0)
    workers, restart = _workers(top.table("worker"), queues, problems)
    workers = needs.with_blanks(workers, len(ports))
    driver = _driver(top.table("driver"))
    metrics = _metrics(top.table("metrics"))
    top.done()
    return c.Config(name, memory, ports, workers, restart, driver, metrics, str(folder))


def _memory(table: Table | None, problems: list[str]) -> c.MemoryConfig:
    if table is None:
        return c.MemoryConfig()
    buffers = None
    if table.values.get("buffers") == "auto":
        table.raw("buffers")
    elif isinstance(table.values.get("buffers"), str):
        table.problem("buffers", f'must be "auto" or an integer, not {shown(table.raw("buffers"))}')
    else:
        buffers = table.optional_integer("buffers", 1, 1 << 24)
    hugepages = table.choice("hugepages", "auto", ("auto", "require", "off"))
    table.done()
    return c.MemoryConfig(buffers, hugepages)


def _ports(top: Table | None, folder: Path, problems: list[str]) -> tuple[c.PortConfig, ...]:
    if top is None or not top.values:
        if not any(problem.startswith("port:") for problem in problems):
            problems.append("port: no port is configured; add a table such as [port.wan]")
        return ()
    ports = []
    for name, value in top.values.items():
        if _is_key_of_a_port(name, value):
            top.problem(name, f"is a key of a port; write [port.NAME] above it, not [{top.path}]")
            continue
        table = top.table(name)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
            top.problem(name, "the name of a port must be 1 to 32 letters, digits, _ and -")
        if table is not None:
            ports.append(_port(name, table, folder))
    if len(ports) > c.PORTS_MAX:
        problems.append(
            f"port: {len(ports)} ports are configured; at most {c.PORTS_MAX} are allowed"
        )
    for at, port in enumerate(ports):
        other = next((p for p in ports[:at] if p.claims == port.claims and p.claims), None)
        if other:
            top.problem(port.name, f"uses the card of port {other.name} ({other.device})")
    cards = [port for port in ports if not port.kernel_interface]  # others fit to every mode
    if len({port.dma_mode for port in cards}) > 1:
        modes = ", ".join(f"{port.name}: {port.dma_mode}" for port in cards)
        problems.append(
            f'port: all cards of an instance need dma = "physical", or none ({modes}); a simulated '
            "card cannot have it, so give it an instance of its own"
        )
    problems += needs.jumbo_zero_copy(ports)
    return tuple(ports)


def _is_key_of_a_port(name: str, value: Any) -> bool:
    """Whether the table `port` has a key that belongs one level below."""
    if isinstance(value, dict) and (name != "wire" or "device" in value):
        return False  # a port, whatever its name is
    return name in _levels()[PORT]


def _port(name: str, table: Table, folder: Path) -> c.PortConfig:
    if "device" not in table:
        table.problem("device", f"is missing; write it as in {', '.join(DEVICES)}")
    device = table.string("device", "sim:82599", check=check_device)
    simulated = device.startswith("sim:")
    dma = table.choice("dma", "auto", ("auto", "offset", "physical"))
    if simulated and dma == "physical":
        table.problem("dma", "a simulated card sees no physical memory; write auto or offset")
    process = table.flag("process", False)
    if process and not simulated:
        table.problem("process", "only a simulated card can run in a process of its own")
    wire = table.table("wire")
    if wire is not None and not simulated:
        table.problem("wire", "only a simulated card has a simulated wire")
    refuse_keys_of_others(table, device)
    of_kernel = device.partition(":")[0] in c.KERNEL_KINDS
    mtu = frames.MTU if of_kernel else table.integer("mtu", frames.MTU, frames.MTU, frames.MTU_MAX)
    port = c.PortConfig(
        name=name,
        device=device,
        queues=table.integer("queues", 1, 1, c.QUEUES_MAX),
        dma=dma,
        unproved=table.flag("unproved", False),
        # A power of two, because bursts wrap with a mask; the chip needs a multiple of 8.
        rx_descriptors=table.integer("rx_descriptors", 512, 64, 4096, power_of_two=True),
        tx_descriptors=table.integer("tx_descriptors", 512, 64, 4096, power_of_two=True),
        promiscuous=table.flag("promiscuous", True),
        mtu=mtu,
        rss_key=table.string("rss_key", "default", check=check_rss_key),
        wire=_wire(wire, folder, mtu) if wire is not None else None,
        process=process,
        **read_card_keys(table),
        **read_keys(table, device),
    )
    table.done()
    return port


def _wire(table: Table, folder: Path, mtu: int) -> c.WireConfig:
    if "replay" in table and "flows" in table:
        table.problem("flows", "a wire has either replay or flows, not both")
    if "repeat" in table and "replay" not in table:
        table.problem("repeat", "has no effect without replay; add replay or remove repeat")
    if "rate_mpps" in table and "replay" not in table and "flows" not in table:
        table.problem(
            "rate_mpps", "has no effect without replay or flows; add one or remove rate_mpps"
        )
    for key in ("pace", "cut"):
        if key in table and "replay" not in table:
            table.problem(key, f"has no effect without replay; add replay or remove {key}")
    pace = table.choice("pace", "rate", ("rate", "captured"))
    if "speed" in table and pace != "captured":
        table.problem("speed", 'has no effect without pace = "captured"; add it or remove speed')
    if "rate_mpps" in table and pace == "captured":
        table.problem("rate_mpps", 'has no effect with pace = "captured"; remove one of them')
    flows = table.table("flows")
    wire = c.WireConfig(
        replay=_path(table, "replay", folder),
        flows=_flows(flows, frames.frame_max(mtu)) if flows is not None else None,
        repeat=table.integer("repeat", 1, 0, 1 << 32),
        rate_mpps=table.number("rate_mpps", 0.0, 0.0, 1000.0),
        record=_path(table, "record", folder),
        pace=pace,
        speed=table.number("speed", 1.0, 0.001, 1e6),
        cut=table.choice("cut", "refuse", ("refuse", "play")),
    )
    table.done()
    return wire


def _path(table: Table, key: str, folder: Path) -> str | None:
    """The path at `key`; a relative path is relative to `folder`."""

    def wrong(text: str) -> str | None:
        return None if text and "\0" not in text else "must be the path of a capture file"

    text = table.optional_string(key, check=wrong)
    return None if text is None else str(folder / os.path.expanduser(text))


def _flows(table: Table, longest: int) -> c.FlowsConfig:
    flows = c.FlowsConfig(
        count=table.integer("count", 256, 1, 1 << 20),
        sizes=_sizes(table, longest),
        ip=table.choice("ip", "ipv4", ("ipv4", "ipv6", "mixed")),
        protocol=table.choice("protocol", "udp", ("udp", "tcp", "mixed")),
        packets=table.integer("packets", 0, 0, 1 << 48),
    )
    table.done()
    return flows


def _sizes(table: Table, longest: int) -> tuple[tuple[int, int], ...]:
    """The mix of frame sizes as (bytes without CRC, weight). The file has bytes with CRC. A card
    receives frames of up to `longest` bytes without it."""
    value = table.raw("sizes")
    if value is None:
        return c.FlowsConfig().sizes
    wanted = SIZES_WANTED.format(longest + c.CRC_BYTES)
    items = value if isinstance(value, list) else [value]
    mix: list[tuple[int, int]] = []
    for item in items:
        whole = isinstance(item, int) and not isinstance(item, bool)
        if item == "imix" and value == "imix":
            mix += IMIX
        elif whole and ETHERNET_MIN <= item - c.CRC_BYTES <= longest:
            mix.append((item, 1))
        else:
            table.problem("sizes", f"{wanted}, not {shown(item)}")
            return c.FlowsConfig().sizes
    if not mix:
        table.problem("sizes", f"{wanted}; the list is empty")
        return c.FlowsConfig().sizes
    return tuple((size - c.CRC_BYTES, weight) for size, weight in mix)


def _workers(
    table: Table | None, queues: int, problems: list[str]
) -> tuple[tuple[c.WorkerConfig, ...], c.RestartConfig]:
    table = table or Table({}, "worker", problems)
    common = _worker(table, c.WorkerConfig(blanks=needs.UNSET))
    cpus = table.integers("cpus", 0, CPU_MAX)
    restart = _restart(table.table("restart"))
    workers = [
        dataclasses.replace(common, cpu=cpus[queue % len(cpus)] if cpus else None)
        for queue in range(max(queues, 1))  # without a port, `check` still examines the plugin
    ]
    numbers = {str(queue): queue for queue in range(queues)}
    for key in list(table.values):
        if not re.fullmatch(r"[0-9]+", key):
            continue
        override = table.table(key)
        if override is None:
            continue
        queue = numbers.get(key)
        if queue is None:
            # Without a port there is no worker at all, and that is reported already.
            if queues:
                table.problem(key, f"there is no worker {key}; the workers are 0 to {queues - 1}")
            override.problems = []
        base = common if queue is None else workers[queue]
        if "plugin" in override and "options" not in override:
            base = dataclasses.replace(base, options={})  # [worker.options] is for its own plugin
        worker = _worker(override, base)
        cpu = override.optional_integer("cpu", 0, CPU_MAX)
        override.done(OPTIONS_ARE_BELOW.format(table=override.path))
        if queue is not None:
            workers[queue] = dataclasses.replace(worker, cpu=base.cpu if cpu is None else cpu)
    table.done(OPTIONS_ARE_BELOW.format(table="worker"))
    return tuple(workers), restart


def _worker(table: Table, base: c.WorkerConfig) -> c.WorkerConfig:
    """The keys that `[worker]` and `[worker.N]` share; `base` has their defaults."""
    options = table.json_table("options")
    return dataclasses.replace(
        base,
        plugin=table.string("plugin", base.plugin, check=check_plugin),
        options=options if "options" in table else base.options,
        state_bytes=table.size("state", base.state_bytes, 1 << 16, 1 << 36),
        blanks=table.integer("blanks", base.blanks, 0, c.BLANKS_MAX),
        debug=table.flag("debug", base.debug),
        silence=table.number("silence", base.silence, 0.1, 3600.0),
    )


def _restart(table: Table | None) -> c.RestartConfig:
    default = c.RestartConfig()
    if table is None:
        return default
    restart = c.RestartConfig(
        intensity=table.integer("intensity", default.intensity, 0, 1000),
        period=table.number("period", default.period, 0.1, 86400.0),
    )
    table.done()
    return restart


def _driver(table: Table | None) -> c.DriverConfig:
    default = c.DriverConfig()
    if table is None:
        return default
    driver = c.DriverConfig(
        cpu=table.optional_integer("cpu", 0, CPU_MAX),
        idle=table.choice("idle", default.idle, ("busy", "adaptive")),
        deep_sleep_us=table.integer("deep_sleep_us", default.deep_sleep_us, 0, 100_000),
    )
    table.done()
    return driver


def _metrics(table: Table | None) -> c.MetricsConfig:
    default = c.MetricsConfig()
    if table is None:
        return default
    listen = table.optional_string("listen", check=check_listen)
    table.done()
    if listen is None:
        return default
    where = parse_listen(listen)
    return c.MetricsConfig(*where) if where else c.MetricsConfig(host=None)
