"""The interface of a loaded plugin, the same for the three tiers.

The engine uses only this interface: first `prepare` (imports and compiles, may take
seconds), then `setup` (names the plugin's memory, takes milliseconds), then batches. If
`function` is not 0, C calls that address for each batch; else the engine calls `process`.
"""

from __future__ import annotations

import os
import sys

from ringline.shm.errors import PluginError
from ringline.shm.text import printable
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
    version: the `__version__` of its module or package, "" without one, None
        for a plugin that comes with ringline.
    remarks: sentences for the log about possible improvements.
    """

    tier = ""
    function = 0  # the address of an rl_batch_function; 0: use `process`
    state = 0  # the address for batch->state
    reads_times = False  # the plugin reads when its packets came: known after `prepare`
    keeps_lengths = False  # it makes no frame longer or shorter: likewise

    def __init__(self, spec: str, declared: Sequence[Option]) -> None:
        if not isinstance(declared, (list, tuple)) or not all(
            isinstance(option, Option) for option in declared
        ):
            raise PluginError(f"plugin {spec}: `options` must be a list of Option")
        self.spec = spec
        self.declared = tuple(declared)
        self.options: dict[str, Any] = {}
        self.remarks: list[str] = []
        self.version: str | None = ""

    def accept(
        self,
        given: Mapping[str, Any],
        folder: str | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """Set the options; `folder` and `places` are those of `resolve`. Raises PluginError that
        names every mistake in them."""
        self.options, problems = resolve(self.declared, given, folder, places)
        if problems:
            raise PluginError(f"plugin {self.spec}: option " + "; option ".join(problems))

    def prepare(self, context: Context) -> None:
        """Import and compile. Raises PluginError."""

    def setup(self, worker: Worker) -> None:
        """Create the plugin's counters, tables and state in the slot. Raises PluginError."""

    def process(self, batch: Batch) -> None:
        """Process a batch in Python, if `function` is 0. Raises what the plugin raises."""

    def refuse_answer(self, returned: object) -> PluginError:
        """The error when `process` returned something: it would have no effect."""
        code = getattr(getattr(self, "process", None), "__code__", None)
        place = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
        return PluginError(
            f"process returned {type(returned).__name__}, and ringline does not read what it "
            "returns: write the verdicts to batch.verdicts[:] or packet.verdict, and return "
            f"nothing{place}"
        )

    def explain(self, frame: bytes, **numbers: int) -> str | None:
        """The exception that the plugin raises on `frame`, as a sentence; None when the tier
        cannot run it again or it raises nothing. `numbers` are the fields of `meta`."""
        return None

    def call_collect(self, collect: Callable[..., Any], worker: Worker) -> Any:
        """What the plugin's `collect` returns in an analysis."""
        return collect(worker, None)

    @property
    def ticks(self) -> Callable[[Worker], object] | None:
        """The function to call about once a second, and again soon if it returns True; or None."""
        return None


def rehearsing_worker(context: Context, options: Mapping[str, Any]) -> Worker:
    """The argument of a setup whose memory is then discarded."""
    from ringline.workers.worker import Worker, private_slot

    return Worker(
        private_slot(context.state_bytes),
        queue=context.queue,
        ports=context.ports,
        options=options,
        rehearsal=True,
    )


def where(error: BaseException) -> str:
    """` (file.py, line 7)`: the innermost line of the traceback that is the plugin's own, or an
    empty string."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f" ({error.filename}, line {error.lineno})"
    frames = _frames(error)
    own = [frame for frame in frames if not is_library(frame[0])]
    if not own and frames:  # the plugin is installed among the libraries
        home = _package(frames[0][0])
        own = [frame for frame in frames if _package(frame[0]) == home]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


def sentence(error: BaseException) -> str:
    """One line for `error`: `ValueError: too short (file.py, line 7)`. For a PluginError that a
    plugin raises only its text, since it is a message for the user of the plugin."""
    text = " ".join(_text(error).split())
    if isinstance(error, PluginError):
        return text + (where(error) if _raised_by_us(error) else "")
    if isinstance(error, SyntaxError):
        text = error.msg
    text = printable(text)  # it may hold bytes of a packet, and goes to a terminal or a log
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]}..."
    if isinstance(error, ModuleNotFoundError) and error.name in COMPILED_EXTRA:
        text += "; pip install ringline[compiled]"
    name = next(kind.__name__ for kind in type(error).__mro__ if not kind.__name__.startswith("_"))
    return f"{name}{': ' if text else ''}{text}{where(error)}"


def _text(error: BaseException) -> str:
    """The text of an exception. Its `__str__` may be a plugin's, too, and fail."""
    try:
        return str(error)
    except BaseException as again:
        return f"its text cannot be shown: its __str__ raised {type(again).__name__}"


def hides_python() -> str:
    """The end of a sentence, for an import that failed: a file in the plugin's folder, the first
    of the search path, that was imported in place of a module of Python; "" without one."""
    for name in sorted(sys.stdlib_module_names & sys.modules.keys()):
        file = getattr(sys.modules[name], "__file__", None) or ""
        if os.path.dirname(file.removesuffix("/__init__.py")) == sys.path[0]:
            return f"; {file} hides the module {name} of Python: rename it"
    return ""


def trace(error: BaseException) -> list[str]:
    """The last lines of the traceback from the plugin on, without ringline's own frames."""
    lines = []
    for file, line, function, raising in _frames(error)[-TRACE_FRAMES:]:
        lines.append(f'  File "{file}", line {line}, in {function}')
        if raising:
            lines.append(f"    {raising}")
    return [printable(text)[:TEXT_MAX] for text in lines]


def _frames(error: BaseException) -> list[tuple[str, int, str, str]]:
    """(file, line, function, text of the line) of the frames that are not ringline's, from the
    outermost to the innermost. Bundled plugins count as user code."""
    import linecache  # only a plugin that fails pays for it

    frames = []
    walk = error.__traceback__
    while walk is not None:
        code = walk.tb_frame.f_code
        file, line = code.co_filename, walk.tb_lineno
        if not file.startswith((*OURS, "<")) or file.startswith(PLUGINS):
            text = linecache.getline(file, line, walk.tb_frame.f_globals).strip()
            frames.append((file, line, code.co_name, text))
        walk = walk.tb_next
    return frames


def is_library(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    parts = file.split("/")
    if file.startswith(PLUGINS):
        return False
    return file.startswith(PYTHON) or "site-packages" in parts or "dist-packages" in parts


def _package(file: str) -> str:
    """The folder of the installed package that holds a file, or its module."""
    folder, mark, inside = file.replace("/dist-packages/", "/site-packages/").rpartition(
        "/site-packages/"
    )
    return f"{folder}{mark}{inside.partition('/')[0]}"


def _raised_by_us(error: BaseException) -> bool:
    """Whether the exception comes from ringline's own code."""
    walk = error.__traceback__
    while walk is not None and walk.tb_next is not None:
        walk = walk.tb_next
    file = walk.tb_frame.f_code.co_filename if walk is not None else ""
    return file.startswith(OURS) and not file.startswith(PLUGINS)


TEXT_MAX = 500  # characters of the text of an exception, and of a line of its traceback
TRACE_FRAMES = 5  # the innermost frames of a traceback
COMPILED_EXTRA = ("numba", "numpy")  # modules that the extra `compiled` brings
PYTHON = os.path.dirname(os.__file__) + "/"  # Python's own modules
_ROOT = __file__.rpartition("/workers/tiers/")[0]
OURS = tuple(f"{_ROOT}/{package}/" for package in ("shm", "workers", "pipeline"))
PLUGINS = f"{_ROOT}/workers/plugins/"
