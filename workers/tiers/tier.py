"""The interface of a loaded plugin, the same for the three tiers.

The engine uses only this interface: first `prepare` (imports and compiles, may take
seconds), then `setup` (names the plugin's memory, takes milliseconds), then batches. If
`function` is not 0, C calls that address for each batch; else the engine calls `process`.
"""

from __future__ import annotations

import os
import sys

from ringline.shm.errors import PluginError
from ringline.workers.options import Option, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ringline.workers.batch import Batch
    from ringline.workers.worker import Worker

# The size of a private slot in dry runs and trials; untouched pages take no memory.
STATE_BYTES = 64 << 20


class Context:
    """The arguments of `prepare`, beside the plugin's options.

    queue: the number of the worker.
    ports: the names of the ports; their positions are the verdicts.
    debug: compile with checks of every index.
    state_bytes: the size of the worker slot, for the dry run of setup.
    """

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
    """A loaded plugin.

    spec: its name in the configuration.
    declared: the options that it accepts; `options` are their values.
    remarks: sentences for the log about possible improvements.
    """

    tier = ""
    function = 0  # the address of an rl_batch_function; 0: use `process`
    state = 0  # the address for batch->state

    def __init__(self, spec: str, declared: Sequence[Option]) -> None:
        if not isinstance(declared, (list, tuple)) or not all(
            isinstance(option, Option) for option in declared
        ):
            raise PluginError(f"plugin {spec}: `options` must be a list of Option")
        self.spec = spec
        self.declared = tuple(declared)
        self.options: dict[str, Any] = {}
        self.remarks: list[str] = []

    def accept(self, given: Mapping[str, Any]) -> None:
        """Set the options. Raises PluginError that names every mistake in them."""
        self.options, problems = resolve(self.declared, given)
        if problems:
            raise PluginError(f"plugin {self.spec}: option " + "; option ".join(problems))

    def prepare(self, context: Context) -> None:
        """Import and compile. Raises PluginError."""

    def setup(self, worker: Worker) -> None:
        """Create the plugin's counters, tables and state in the slot. Raises PluginError."""

    def process(self, batch: Batch) -> None:
        """Process a batch in Python, if `function` is 0. Raises what the plugin raises."""

    def explain(self, frame: bytes, **numbers: int) -> str | None:
        """The exception that the plugin raises on `frame`, as a sentence; None when the tier
        cannot run it again or it raises nothing. `numbers` are the fields of `meta`."""
        return None

    @property
    def ticks(self) -> Callable[[Worker], None] | None:
        """The function to call about once a second, or None."""
        return None


def where(error: BaseException) -> str:
    """` (file.py, line 7)`: the innermost line of the traceback that is not ringline's own, or
    an empty string. Bundled plugins count as user code."""
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
    """One line for `error`: `ValueError: too short (file.py, line 7)`. For a PluginError only
    its text, since a plugin raises it with a message for its user."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    if isinstance(error, SyntaxError):
        text = error.msg
    # The text may hold bytes of a packet, and goes to a terminal or a log.
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]}..."
    if isinstance(error, ModuleNotFoundError) and error.name in COMPILED_EXTRA:
        text += "; pip install ringline[compiled]"
    return f"{type(error).__name__}{': ' if text else ''}{text}{where(error)}"


def hides_python() -> str:
    """The end of a sentence, for an import that failed: a file in the plugin's folder, the first
    of the search path, that was imported in place of a module of Python; "" without one."""
    for name in sorted(sys.stdlib_module_names & sys.modules.keys()):
        file = getattr(sys.modules[name], "__file__", None) or ""
        if os.path.dirname(file.removesuffix("/__init__.py")) == sys.path[0]:
            return f"; {file} hides the module {name} of Python: rename it"
    return ""


TEXT_MAX = 500  # characters of the text of an exception
COMPILED_EXTRA = ("numba", "numpy")  # modules that the extra `compiled` brings
OURS = __file__.rpartition("/tiers/")[0] + "/"
PLUGINS = OURS + "plugins/"
