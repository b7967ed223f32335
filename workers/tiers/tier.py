"""A loaded plugin, whichever of the three tiers it is written for.

The engine knows only this. A life is: `prepare` (imports and compiles, may take a
second), `setup` (names its memory, takes milliseconds), then batches: through
`function`, an address that C calls once per batch, or through `process` when
that is 0.
"""

from __future__ import annotations

from ringline.shm.errors import PluginError
from ringline.workers.options import Option, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ringline.workers.batch import Batch
    from ringline.workers.worker import Worker

# Room for what a plugin names, where there is no slot; memory that is not touched is free.
STATE_BYTES = 64 << 20


class Context:
    """What `prepare` has to know beside the plugin's own options."""

    def __init__(
        self,
        *,
        queue: int = 0,
        ports: Sequence[str] = ("port",),
        debug: bool = False,
        state_bytes: int = STATE_BYTES,
    ) -> None:
        self.queue = queue
        self.ports = tuple(ports)
        self.debug = debug
        self.state_bytes = state_bytes


class Tier:
    """A loaded plugin. `spec` is its name in the configuration, `remarks` are sentences
    for the log: what works, and could be better."""

    tier = ""
    function = 0  # address of an rl_batch_function
    state = 0  # address that it finds in batch->state

    def __init__(self, spec: str, declared: Sequence[Option]) -> None:
        if not isinstance(declared, (list, tuple)) or not all(
            isinstance(option, Option) for option in declared
        ):
            raise PluginError(f"plugin {spec}: `options` is a list of Option")
        self.spec = spec
        self.declared = tuple(declared)
        self.options: dict[str, Any] = {}
        self.remarks: list[str] = []

    def accept(self, given: Mapping[str, Any]) -> None:
        """Take the options; raises PluginError with every mistake in them."""
        self.options, problems = resolve(self.declared, given)
        if problems:
            raise PluginError(f"plugin {self.spec}: option " + "; option ".join(problems))

    def prepare(self, context: Context) -> None:
        """Do what takes long. Raises PluginError."""

    def setup(self, worker: Worker) -> None:
        """Name memory, for a worker that is about to run. Raises PluginError."""

    def process(self, batch: Batch) -> None:
        """Judge a batch in Python; only when `function` is 0. Raises what the plugin raises."""

    def explain(self, frame: bytes, **numbers: int) -> str | None:
        """What the plugin raises on a frame, when running it anew can tell; `numbers` are
        those of its `meta`."""
        return None

    @property
    def ticks(self) -> Callable[[Worker], None] | None:
        """What the plugin wants called about once a second, if anything."""
        return None


def where(error: BaseException) -> str:
    """` (file.py, line 7)`: the last place outside ringline and Python that `error` passed,
    or nothing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((OURS, "<")) or file.startswith(PLUGINS):
            place = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def sentence(error: BaseException) -> str:
    """`ValueError: too short (file.py, line 7)`, on one line; a PluginError, which a plugin
    raises to say something to its user, speaks for itself."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    if isinstance(error, SyntaxError):
        text = error.msg
    # It may hold bytes of a packet, and is shown on a terminal and written to a journal.
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]}..."
    if isinstance(error, ModuleNotFoundError) and error.name in COMPILED_EXTRA:
        text += "; pip install ringline[compiled]"
    return f"{type(error).__name__}{': ' if text else ''}{text}{where(error)}"


TEXT_MAX = 500  # characters of what an exception says
COMPILED_EXTRA = ("numba", "numpy")  # modules that the extra `compiled` brings
OURS = __file__.rpartition("/tiers/")[0] + "/"
PLUGINS = OURS + "plugins/"
