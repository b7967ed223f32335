"""The batch tier: a class with `process(batch)`.

    class Probe:
        options = [Option("limit", int, 10)]

        def prepare(self, options): ...      # optional; may take seconds
        def setup(self, worker): ...         # optional; takes milliseconds
        def process(self, batch): ...
        def tick(self, worker): ...          # optional; called about once a second
        times = True                         # only if it reads packet.time or batch.times

An exception in `process` drops the whole batch; it is counted and reported. So does a `process`
that returns something: verdicts that nobody reads would be lost in silence.
"""

from __future__ import annotations

import sys
from functools import partial

from ringline.shm.errors import PluginError
from ringline.workers.tiers.tier import Context, Tier, rehearsing_worker, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ringline.workers.batch import Batch
    from ringline.workers.worker import Worker

# The methods that ringline calls -> the name of their argument after `self`.
METHODS = {"prepare": "options", "setup": "worker", "process": "batch", "tick": "worker"}

# co_flags of code that a call does not run: generator, coroutine, async generator.
LATER = 0x20 | 0x80 | 0x200

# Attributes of a batch that need NumPy.
COLUMNS = {
    *("verdicts", "ports", "lengths", "hashes", "flags", "vlan_tcis", "times"),
    *("gather", "scatter"),
}


class BatchTier(Tier):
    """A loaded plugin class. Each worker process makes one object of it."""

    tier = "batch"

    def __init__(self, spec: str, declared: type) -> None:
        super().__init__(spec, getattr(declared, "options", ()))
        self._declared = declared
        self._plugin: Any = None
        times = getattr(declared, "times", False)
        if not isinstance(times, bool):
            raise PluginError(
                f"plugin {spec}: `times` must be true or false, not {type(times).__name__}"
            )
        self.reads_times = times

    def prepare(self, context: Context) -> None:
        """Make the object and call its `prepare`. Raises PluginError."""
        methods = (value for value in vars(self._declared).values() if hasattr(value, "__code__"))
        if any(COLUMNS.intersection(method.__code__.co_names) for method in methods):
            try:
                __import__("numpy")  # takes 80 ms: not with the first packets
            except ImportError as error:
                raise PluginError(
                    f"plugin {self.spec} uses columns of a batch: {sentence(error)}"
                ) from None
        try:
            self._plugin = self._declared()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {self.spec}: {self._declared.__name__}() failed: {sentence(error)}"
            ) from error
        for name, argument in METHODS.items():
            self._check_arguments(name, argument)
        self._call("prepare", self.options)
        self._rehearse(context)
        self.process = self._plugin.process  # type: ignore[method-assign]  # saves a call per batch

    def _rehearse(self, context: Context) -> None:
        """Let numba compile what the first packets would call, with an object of its own."""
        from ringline.workers.tiers import rehearsal

        module = sys.modules.get(self._declared.__module__)
        if module is None or not rehearsal.is_needed(vars(module)):
            return
        # Lets helpers take a prefix table or a map as an argument.
        from ringline.workers.tiers import jit_lookup  # noqa: F401

        worker = rehearsing_worker(context, self.options)
        plugin: Any = self._declared()
        batch = rehearsal.sample_batch(context.queue, len(context.ports), self.reads_times)
        calls = {"prepare": self.options, "setup": worker, "process": batch, "tick": worker}
        rehearsal.rehearse(
            *(
                partial(getattr(plugin, name), argument)
                for name, argument in calls.items()
                if hasattr(plugin, name)
            )
        )

    def setup(self, worker: Worker) -> None:
        """Call the object's `setup`. Raises PluginError."""
        self._call("setup", worker)

    def process(self, batch: Batch) -> None:
        """Replaced by the object's method in `prepare`."""
        raise NotImplementedError

    def call_collect(self, collect: Callable[..., Any], worker: Worker) -> Any:
        """What the object's `collect` returns in an analysis."""
        return self._plugin.collect(worker)

    @property
    def ticks(self) -> Callable[[Worker], None] | None:
        """The object's `tick`, or None."""
        tick: Callable[[Worker], None] | None = getattr(self._plugin, "tick", None)
        return tick

    def _check_arguments(self, name: str, argument: str) -> None:
        method: Any = getattr(self._plugin, name, None)
        code = getattr(method, "__code__", None)
        if code is None:
            return
        if code.co_flags & LATER:
            raise PluginError(
                f"plugin {self.spec}: {name} must be a plain function, without async and without "
                f"yield ({code.co_filename}, line {code.co_firstlineno})"
            )
        if code.co_flags & 0x04:  # *arguments: any number
            return
        given = 2 if hasattr(method, "__self__") else 1
        if not code.co_argcount - len(method.__defaults__ or ()) <= given <= code.co_argcount:
            raise PluginError(
                f"plugin {self.spec}: {name} must take (self, {argument}); it takes "
                f"({', '.join(code.co_varnames[: code.co_argcount])}) "
                f"({code.co_filename}, line {code.co_firstlineno})"
            )

    def _call(self, name: str, argument: Any) -> None:
        method = getattr(self._plugin, name, None)
        if method is None:
            return
        try:
            method(argument)
        except (Exception, SystemExit) as error:
            raise PluginError(f"plugin {self.spec}: {name} failed: {sentence(error)}") from error
