"""Every deadline of ringline, in one table. All values are seconds.

Deadlines nest: a process that waits for another one waits longer than the other one's own limit.
Otherwise the outer one ends the inner one first, and its reason is never told. `NESTED` lists
which deadline lies inside which; tests/pipeline/configuration/test_deadlines.py checks it, and
that the constants of processes that cannot import this module are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

# -- a worker, as the supervisor sees it ---------------------------------------------------------

WORKER_SILENCE = 1.0  # without a new heartbeat, then SIGABRT
WORKER_PREPARE = 180.0  # to load and compile: `router` without a cache, on a busy machine
WORKER_LONG = 8.0  # of WORKER_PREPARE, until a sentence says what takes so long
WORKER_SETUP = 10.0
WORKER_STOP = 2.5  # from Stop or SIGKILL to the exit
WORKER_GRACE = 0.5  # from SIGABRT to SIGKILL: time for a traceback

# -- a worker, as it sees itself: mirrored in workers/ -------------------------------------------

WORKER_DRAIN = 2.0  # DRAIN_SECONDS of workers/process/process.py
WORKER_SEND = 2.0  # _SECONDS of workers/process/channel.py
TRIAL_PREPARE = 180.0  # PREPARE_SECONDS of workers/trials/checking.py
ANALYSIS_SILENCE = 30.0  # no packet read in a task: SILENCE_SECONDS of workers/analysis/children.py
URL_ANSWER = 20.0  # an answer of the server of a URL; waiting for it counts as progress
URL_LISTING = 300.0  # all answers about a folder or a pattern behind a URL
ANALYSIS_JOIN = 600.0  # JOIN_SECONDS of workers/analysis/children.py
ANALYSIS_IDLE = 60.0  # IDLE_SECONDS of workers/analysis/remote.py
TRIAL_BATCH = 10.0  # SILENCE_SECONDS of workers/trials/trial.py

# -- an engine of analyses, as its client sees it ------------------------------------------------

ANALYSIS_ENGINE = 30.0  # it answers
ANALYSIS_WORKERS = 60.0  # it has a worker again
ANALYSIS_REFUSED = 3.0  # its address accepts a connection, when one is refused first

# -- the stages of a run (supervisor/run_states.py) ----------------------------------------------

OPEN = 30.0  # the driver finds its cards; again: it starts them
DRAIN = 5.0
HURRY = 0.3  # a drain after a second signal
DRAIN_SHARE = 0.9  # not seconds: the driver's part of DRAIN and HURRY; it still has to answer
GRACE = 0.5  # from SIGABRT to SIGKILL for a driver
KILL = 2.0  # from SIGKILL, or a closed control socket, to the exit
RETIRE = 7.0  # workers are killed earlier; a worker that survives is left
CLOSE = 10.0  # the driver stops its cards
DISMISS = 5.0  # card processes write their recordings
OUTPUT_END = 2.0  # for a reader of the last lines
OUTPUT_LAST = 0.5  # for the sentence about lost lines, after OUTPUT_END
COMMAND_END = 5.0  # from a signal to the end of a command of `lab --exec`, then SIGKILL
REPORT_READER = 2.0  # for a reader of a report that goes to a pipe

# -- the driver, as the supervisor sees it -------------------------------------------------------

DRIVER_SILENCE = 3.0  # without a pass of its loop, then SIGABRT
SETTLE = 5.0  # from Renew to Renewed
EXIT_DELAY = 0.5  # from a closed control socket to the exit of a child, on a busy machine
KILLED = 10.0  # from SIGKILL to the exit; a child that hangs in the kernel may never end

# -- the driver, as it sees itself: for all its ports together -----------------------------------

START = 20.0  # start every port, with the wait for its link
STOP_RECEIVING = 2.0  # at the beginning of a drain
STOP = 6.0  # stop every port, with the wait for packets that are still to be sent
ABANDON = 1.5  # the same after the supervisor is gone, or after an error

# -- one port ------------------------------------------------------------------------------------

REGISTER = 5.0  # until a register has its value: a model in another process may poll rarely
LINK = 3.0  # in `start`; without a link a port starts all the same
SENT = 1.0  # in `stop`: until posted packets are sent
MASTER_DISABLE = 0.2  # until the DMA that a card has begun is complete
EEPROM = 0.1  # until an 82576 has read its EEPROM; some cards without one never say so
SEMAPHORE = 1.0  # that a driver which lives never holds the semaphore of an 82576 (SWSM.SMBI)
CONTROL = 2.0  # an answer of a virtio device to a command
MAILBOX = 1.0  # an answer of a simulated card in its own process
NETLINK = 1.0  # an answer of the kernel about an interface
RELEASED = 5.0  # until the kernel has released closed sockets, so that channels can be restored
PROBE = 1.0  # until an interface of the kernel reports that it sent a frame
BOUND = 5.0  # until a kernel driver has a card that was offered to it
CARD_FREE = 2.0  # until a driver that lost its supervisor has released a card

# -- messages, status, metrics -------------------------------------------------------------------

SEND = 2.0  # a control message (`Control.send` in shm/control.py)
SERVE = 2.0  # from the connection of a client to the last byte of its answer
CARD_CLIENT = 5.0  # until the client of a served card takes an answer
STATUS_PROBE = 1.0  # whether somebody answers on a status socket, or serves a card there
STATUS_LOCK = 1.0  # for another process that replaces or removes a socket
STATUS_ANSWER = 5.0  # for the whole answer
WATCHDOG = 10.0  # WatchdogSec of deploy/ringline@.service
UNIT_START = 240.0  # TimeoutStartSec
UNIT_STOP = 45.0  # TimeoutStopSec

# -- the benchmark -------------------------------------------------------------------------------

BENCH_PROGRESS = 5.0  # without progress of a peer
BENCH_WORKER = WORKER_PREPARE + WORKER_SETUP + 5.0  # until a worker is ready
BENCH_START = WORKER_PREPARE + WORKER_SETUP + OPEN + 5.0  # until a run answers
BENCH_FORWARDER = 20.0  # until a program of `bench xdp` is ready, and until it forwards
BENCH_COMMAND = 20.0  # a command that makes an interface
BENCH_PEER = 600.0  # one program of `bench analyze`, with all its captures
BENCH_PARTS = 300.0  # the benchmark of another version, until it has printed its figures
# The whole end of a run, by signal: see `longest_end`.


def longest_end() -> float:
    """The longest time from a signal to the end of a run, when everything takes its limit."""
    cards = DISMISS + KILL
    return DRAIN + RETIRE + CLOSE + GRACE + KILL + cards


BENCH_STOP = longest_end() + 5.0


@dataclass(frozen=True)
class PortLimits:
    """How long one port may wait in each call of the driver, in seconds.

    `register` bounds one wait for a register, the limit of the call all waits in it together.
    """

    start: float = START
    stop_receiving: float = STOP_RECEIVING
    stop: float = STOP
    abandon: float = ABANDON
    register: float = REGISTER
    link: float = LINK
    sent: float = SENT

    def share(self, ports: int) -> PortLimits:
        """The limits of one of `ports` ports, which the driver serves one after the other."""
        start, stop = self.start / ports, self.stop / ports
        return PortLimits(
            start=start,
            stop_receiving=self.stop_receiving / ports,
            stop=stop,
            abandon=self.abandon / ports,
            register=self.register,
            link=min(self.link, start / 2),
            sent=min(self.sent, stop / 2),
        )


# (inner, outer, who waits for whom)
NESTED: tuple[tuple[float, float, str], ...] = (
    (ANALYSIS_REFUSED, ANALYSIS_ENGINE, "a refused connection, an answer of an engine"),
    (ANALYSIS_ENGINE, ANALYSIS_WORKERS, "an answer of an engine, a worker of it"),
    (WORKER_DRAIN, WORKER_STOP, "a worker that is told to stop: its drain, the supervisor"),
    (WORKER_STOP + WORKER_GRACE, RETIRE, "one worker, all workers"),
    (2 * WORKER_STOP, RETIRE, "a worker that must be killed, all workers"),
    (WORKER_LONG, WORKER_PREPARE, "the sentence about a long start, the start"),
    (TRIAL_PREPARE, WORKER_PREPARE + WORKER_SETUP, "what `check` accepts, what a run accepts"),
    (DRAIN * DRAIN_SHARE, DRAIN, "the driver's drain, the stage"),
    (HURRY * DRAIN_SHARE, HURRY, "the driver's hurried drain, the stage"),
    (STOP_RECEIVING, DRIVER_SILENCE, "no pass of the driver's loop, its sign of life"),
    (STOP_RECEIVING, DRAIN * DRAIN_SHARE, "the receivers, the drain"),
    (SEND, DRIVER_SILENCE, "a message of the driver, its sign of life"),
    (MAILBOX, STOP_RECEIVING, "an access to a simulated card, the receivers"),
    (MAILBOX, ABANDON, "an access to a simulated card, an abandoned port"),
    (DRIVER_SILENCE, SETTLE, "a driver that hangs, a driver that does not settle"),
    (STOP, CLOSE, "the driver's stop of its ports, the stage"),
    (STOP + SEND, CLOSE, "the same with its answer, the stage"),
    (START + ABANDON + SEND, OPEN, "a start that fails, and its report, the stage"),
    (ABANDON, KILL, "a driver that lost its supervisor, SIGKILL"),
    (ABANDON, CARD_FREE, "a driver that lost its supervisor, the next start"),
    (REGISTER, START, "a register, the start"),
    (LINK, START, "the link, the start"),
    (SEMAPHORE, START, "a semaphore that a killed driver left, the start"),
    (EEPROM, START, "the EEPROM of a card, the start"),
    (CONTROL, STOP, "a command of a virtio device, the stop"),
    (REGISTER, STOP, "a register, the stop"),
    (SENT, STOP, "packets that are still to be sent, the stop"),
    (MASTER_DISABLE, ABANDON, "DMA that has begun, an abandoned port"),
    (SERVE, STATUS_ANSWER, "an answer of the status socket, its client"),
    (STATUS_PROBE, SERVE, "a probe of the status socket, its server"),
    (DRIVER_SILENCE, WATCHDOG, "a driver that hangs, the service manager"),
    (WORKER_PREPARE + WORKER_SETUP + OPEN, UNIT_START, "the start of a run, its unit"),
    (longest_end(), UNIT_STOP, "the end of a run, its unit"),
    (WORKER_PREPARE + WORKER_SETUP, BENCH_WORKER, "a worker's start, the benchmark"),
    (WORKER_PREPARE + WORKER_SETUP + OPEN, BENCH_START, "a run's start, the benchmark"),
    (longest_end(), BENCH_STOP, "a run's end, the benchmark"),
)
