"""Forward every packet by a map from input port to output port, in C.

Without a map, a single port sends every packet back, and an even number of ports form
pairs: 0 with 1, 2 with 3. An odd number above 1 needs a map.
"""

from __future__ import annotations

from ringline.shm.errors import PluginError
from ringline.workers._workers import ffi, lib
from ringline.workers.options import Option
from ringline.workers.tiers.native import native_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringline.workers.worker import Worker

MAP = Option("map", dict, None, 'input port = output port, such as { wan = "lan", lan = "wan" }')


def outputs(worker: Worker) -> list[int]:
    """The verdict for each input port: an output port, or DROP when the map lacks the port.

    Raises PluginError when the map names an unknown port, or is needed and missing.
    """
    ports = list(worker.ports)
    given = worker.options["map"]
    if given is None:
        if len(ports) == 1:
            return [0]
        if len(ports) % 2:
            raise PluginError(
                f"with {len(ports)} ports the option map must be given, "
                f'such as {{ {ports[0]} = "{ports[1]}" }}'
            )
        return [port ^ 1 for port in range(len(ports))]
    for name in (*given, *given.values()):
        if name not in worker.ports:
            raise PluginError(
                f"the option map names the port {name!r}, which does not exist; "
                f"the ports are {', '.join(ports)}"
            )
    drop: int = lib.RL_VERDICT_DROP
    return [worker.ports[given[name]] if name in given else drop for name in ports]


def _setup(worker: Worker) -> Any:
    return ffi.new("uint8_t[]", outputs(worker))


forward = native_plugin(ffi.addressof(lib, "rl_forward"), setup=_setup, options=[MAP])
