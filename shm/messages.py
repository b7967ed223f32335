"""The messages between the supervisor and its children, each declared once.

A message is one JSON object on a control socket (control.py), with file descriptors beside
it. A message to a child has the key `do`, a message from a child the key `event`.

Driver (pipeline/driver/process.py):

| supervisor sends | when                     | driver does, then sends                          |
|------------------|--------------------------|--------------------------------------------------|
| Sockets          | it has started, once per | keeps them for DriverOpen                        |
|                  | port that has sockets    |                                                  |
|                  | its interface was made   | replaces the sockets of the port -> Attached     |
|                  | again                    |                                                  |
| DriverOpen       | after that               | finds and maps the cards -> Opened               |
| Begin            | every worker is ready    | starts the cards -> DriverReady                  |
| Renew            | rings are made, or a     | settles the queue, takes the new rings           |
|                  | queue is given up        | -> Renewed                                       |
| Drain            | the run ends; a second   | receives no more; when nothing is in flight or   |
|                  | Drain shortens it        | `seconds` have passed -> Drained                 |
| Stop             | all workers have ended   | settles all queues, stops the cards, counts the  |
|                  |                          | books with a full scan, exits -> DriverStopped   |

Unasked, the driver sends Ports about once a second while the supervisor reads, and Finished
once, when every wire is simulated and has sent everything, and nothing is in flight.

Worker (workers/process/process.py):

| supervisor sends | when                     | worker does, then sends                          |
|------------------|--------------------------|--------------------------------------------------|
| WorkerOpen       | it has started           | loads and compiles the plugin -> Prepared;       |
|                  |                          | sets it up -> WorkerReady                        |
| Stop             | the run is to end        | works on what is on its `in` ring, returns the   |
|                  |                          | blanks and exits                                 |

Unasked, a worker sends Report: remarks once before WorkerReady, errors of the plugin at most
once a second and at the end; and LogLine, when the plugin writes to its log.

Card process (pipeline/ports/sim82599/process.py):

| supervisor sends | when                     | card process does, then sends                    |
|------------------|--------------------------|--------------------------------------------------|
| CardOpen         | it has started           | makes the card -> CardReady                      |
| SetBusMaster     | the driver did not stop  | allows or forbids DMA -> BusMasterSet            |
|                  | its cards                |                                                  |
| Stop             | the driver has ended     | writes its recording and exits -> CardStopped    |

Any child that fails sends Failed and exits. Any child whose control socket closes exits: its
supervisor is gone.

The supervisor trusts the driver and card processes. It does not trust a worker, which runs
a user's code: it reads FromWorker as a plain dictionary and checks each value.

Worker processes must not import this module at run time: typing takes milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class ErrorDescription(TypedDict):
    """An error on its way to the supervisor: see `describe` and `revive` in control.py."""

    type: str  # name of the class
    message: str


class Failed(TypedDict):
    """The child cannot go on and exits."""

    event: Literal["failed"]
    error: ErrorDescription


class Stop(TypedDict):
    """Finish and exit; what that means for each child is in the tables above."""

    do: Literal["stop"]


# -- driver ---------------------------------------------------------------------------------


class Sockets(TypedDict):
    """The sockets of the port with the number `port`, which the supervisor has opened.

    `channels` is empty, or it is for an interface whose channels the supervisor has changed: its
    number, then what to set when the supervisor is gone (`restore_channels` of
    pipeline/ports/interfaces/interface.py). Descriptors: one for each queue, in order.
    """

    do: Literal["sockets"]
    port: int
    channels: list[int]


# `config` is Config.to_json(). `yield` is true when the driver shares its CPU with a worker;
# as a Python keyword it needs this form of declaration.
# Descriptors: .descriptors, .packets, .lane.0, then .card.<port> of each card process.
DriverOpen = TypedDict(
    "DriverOpen", {"do": Literal["open"], "config": dict[str, Any], "yield": bool}
)


class Begin(TypedDict):
    """Start the cards: packets move from now on."""

    do: Literal["begin"]


class Renew(TypedDict):
    """Settle the previous generation of the queue, then use the rings of `generation`.

    One descriptor: .rings.<queue>.<generation>. Without it the queue is given up.
    """

    do: Literal["renew"]
    queue: int
    generation: int


class Look(TypedDict):
    """The link of a port may have changed: look at all ports now, and send Ports."""

    do: Literal["look"]


class Drain(TypedDict):
    """Stop receiving, and let what is in flight go out for at most `seconds`."""

    do: Literal["drain"]
    seconds: float


class LinkReport(TypedDict):
    """The link of a port; `mbps` is its speed in Mbit/s."""

    up: bool
    mbps: int


class PortReport(TypedDict):
    """A port as the driver sees it."""

    name: str
    link: LinkReport
    mac: str
    statistics: dict[str, int]  # the card's own counters
    wire: dict[str, int]  # counters of a simulated wire; empty for a real card
    faults: list[str]  # its failure, and requests to a simulated card that a chip would refuse
    failed: str  # why the port has failed for good; "" while it works
    trouble: str | None  # a problem that ends the run; only the operator can solve it
    bad_input: str | None  # the same: a capture that cannot be replayed to its end


class SettlementReport(TypedDict):
    """What settling a queue did, in references: see struct rl_settlement."""

    returned: int
    carried: int
    lost: int
    refused: int


class StopReport(TypedDict, total=False):
    """`ports` is missing when the cards were never started."""

    ports: list[PortReport]


class Attached(TypedDict):
    """The port with the number `port` uses its new sockets, and has posted buffers to them; if not
    `used`, their interface is gone again, and the port waits for others."""

    event: Literal["attached"]
    port: int
    used: bool


class Opened(TypedDict):
    """The cards are found and mapped."""

    event: Literal["opened"]


class DriverReady(TypedDict):
    """The cards receive."""

    event: Literal["ready"]
    ports: list[PortReport]


class Ports(TypedDict):
    """The ports as they are now."""

    event: Literal["ports"]
    ports: list[PortReport]


class Renewed(TypedDict):
    """The queue is settled, and its rings older than `generation` are no longer used."""

    event: Literal["renewed"]
    queue: int
    generation: int
    settled: SettlementReport


class Finished(TypedDict):
    """No simulated wire has anything left to send, and nothing is in flight."""

    event: Literal["finished"]


class Drained(TypedDict):
    """The drain has ended, with `in_flight` packets still in flight."""

    event: Literal["drained"]
    in_flight: int


class DriverStopped(TypedDict):
    """The cards are stopped and the books are closed."""

    event: Literal["stopped"]
    report: StopReport


ToDriver = Sockets | DriverOpen | Begin | Look | Renew | Drain | Stop
FromDriver = (
    Opened | Attached | DriverReady | Ports | Renewed | Finished | Drained | DriverStopped | Failed
)

# -- worker ---------------------------------------------------------------------------------

# `plugin` and `options` are those of the configuration; a plugin or an option given as a path is
# relative to `folder`. `places` says where an option is in the file, for messages.
# `reasons` are the drop reasons that earlier lives of the worker named, by number. `ports` are the
# names of all ports, and `frame_max` is the longest frame in bytes that one of them sends.
# `state_bytes` is the size in bytes of the plugin's area in the slot. `idle`
# is "adaptive" or "busy". `yield` is true when the worker shares its CPU. With `cpu` None it may
# run on any CPU.
# Descriptors: .packets, .rings.<queue>.<generation>, .worker.<queue>, then, to read only,
# .worker.<queue> of each other worker with the same plugin, options and `state_bytes`.
WorkerOpen = TypedDict(
    "WorkerOpen",
    {
        "do": Literal["open"],
        "queue": int,
        "generation": int,
        "plugin": str,
        "options": dict[str, Any],
        "places": dict[str, str],
        "reasons": list[str],
        "ports": list[str],
        "frame_max": int,
        "folder": str | None,
        "state_bytes": int,
        "debug": bool,
        "idle": str,
        "yield": bool,
        "cpu": int | None,
    },
)


class Prepared(TypedDict):
    """The plugin is loaded and compiled."""

    event: Literal["prepared"]


class WorkerReady(TypedDict):
    """The plugin is set up; the worker takes packets from now on. `version` is the plugin's, "" if
    it has none, None if it comes with ringline."""

    event: Literal["ready"]
    version: str | None


class PluginReport(TypedDict, total=False):
    """The supervisor announces each remark and each trace once in a run, errors at most once a
    second, or with a trace that is new."""

    remarks: list[str]
    error: str
    trace: list[str]  # the last lines of the traceback of `error`


class Report(TypedDict):
    """News of the plugin. The last report of each worker is in the report of the run."""

    event: Literal["report"]
    plugin: PluginReport


class LogLine(TypedDict):
    """A line that the plugin writes into the log of the run; `level` is info, warning or error."""

    event: Literal["log"]
    level: str
    line: str


ToWorker = WorkerOpen | Stop
FromWorker = Prepared | WorkerReady | Report | LogLine | Failed

# -- card process ---------------------------------------------------------------------------


class CardOpen(TypedDict):
    """Be the card of the port with the number `port`. `config` is Config.to_json().

    Descriptors: .descriptors, .packets, .card.<port>.
    """

    do: Literal["open"]
    config: dict[str, Any]
    port: int


class SetBusMaster(TypedDict):
    """Allow (`on`) or forbid DMA."""

    do: Literal["bus_master"]
    on: bool


class CardReady(TypedDict):
    """The driver can find the card."""

    event: Literal["ready"]


class BusMasterSet(TypedDict):
    """With `on` false the card does no DMA from now on."""

    event: Literal["bus_master"]
    on: bool


class CardStopped(TypedDict):
    """The last counters of the wire, and why the recording or the replay ended early, if it did."""

    event: Literal["stopped"]
    wire: dict[str, int]
    trouble: str | None
    bad_input: str | None


ToCard = CardOpen | SetBusMaster | Stop
FromCard = CardReady | BusMasterSet | CardStopped | Failed

ToChild = ToDriver | ToWorker | ToCard
