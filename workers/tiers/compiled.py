"""The compiled tier: numba compiles a batch loop around the user's packet function.

Four mistakes would be silent, and this is how ringline shows them:
 - numba prints an exception in a callback and returns 0, "send to port 0". The generated
   loop catches the exception, and the verdict of the packet is an error.
 - A verdict such as 256 would become a port when it is stored as 8 bits. The loop compares
   it with the number of ports first, as an int64.
 - An index out of range reads memory beside the packet. With `debug = true` it raises
   IndexError.
 - A copied slice costs 30 ns per packet, and memory allocated before an exception is never
   freed (a limit of numba; 70 to 170 bytes per packet). A remark tells the user.
"""

from __future__ import annotations

import os
import re

from ringline.shm.errors import PluginError
from ringline.workers.function import PacketFunction
from ringline.workers.tiers import names, rehearsal
from ringline.workers.tiers.tier import (
    Context,
    Tier,
    hides_python,
    rehearsing_worker,
    sentence,
    where,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ringline.workers.tiers.codegen import Build, StateShape
    from ringline.workers.worker import Worker

_ALLOCATION = re.compile(r"call [^\n]*@NRT_(Allocate|MemInfo_(alloc|new))")


class CompiledTier(Tier):
    """A loaded packet function."""

    tier = "compiled"

    def __init__(self, spec: str, declared: PacketFunction) -> None:
        super().__init__(spec, declared.options)
        self._use(declared)
        self._shape: StateShape | None = None
        self._loop: Any = None
        self._state: Any = None
        self._keep: tuple[Any, ...] = ()
        self._uses: set[str] = set()  # of `meta.time` and `resize`

    def _use(self, declared: PacketFunction) -> None:
        self._declared = declared
        function = declared.function
        # If numba.njit was applied already: compile the function again, with our flags.
        self._function: Any = getattr(function, "py_func", function)

    def accept(
        self,
        given: Mapping[str, Any],
        folder: str | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """Set the options, and choose the function for them; see `Tier.accept`."""
        super().accept(given, folder, places)
        if self._declared.instead is not None:
            self._use(self._declared.instead(self.options) or self._declared)

    def prepare(self, context: Context) -> None:
        """Compile the function, or load it from the cache. Raises PluginError."""
        self._check_arguments()
        try:
            import numba
        except ModuleNotFoundError:
            raise PluginError(
                f"plugin {self.spec} needs numba, which is not installed: "
                "pip install ringline[compiled]"
            ) from None
        except Exception as error:  # for instance a NumPy that it does not support
            raise PluginError(
                f"plugin {self.spec} needs numba, which does not import: {sentence(error)}"
                f"{hides_python()}"
            ) from None
        from ringline.workers.tiers import refusals

        refusals.check_environment(self.spec)
        # Also for functions that the plugin calls; reset for plugins that are compiled later.
        numba.config.BOUNDSCHECK = 1 if context.debug else None
        if self._declared.setup is not None:
            self._shape = self._dry_run_setup(context)
        self._uses = {name for name in ("time", "resize") if names.mentions(self._function, name)}
        self._loop = self._compile(context)
        self.reads_times = "time" in self._uses
        self.keeps_lengths = "resize" not in self._uses
        self.function = self._loop.address

    def setup(self, worker: Worker) -> None:
        """Run the plugin's setup. Raises PluginError when the state has not the compiled types."""
        if self._declared.setup is None:
            return
        from ringline.workers.tiers import codegen

        state, parts, shape = self._run_setup(worker)
        if shape != self._shape:
            raise PluginError(
                f"plugin {self.spec}: setup returned other types than in its dry run; "
                "they may depend only on the options, the ports and the queue"
            )
        words = codegen.pack(parts)
        self._state = state
        self._keep = (parts, words)
        self.state = words.ctypes.data

    def call_collect(self, collect: Callable[..., Any], worker: Worker) -> Any:
        """What the plugin's `collect` returns in an analysis, called with its state."""
        return collect(worker, self._state)

    @property
    def ticks(self) -> Callable[[Worker], object] | None:
        """The plugin's tick, called with its state; or None."""
        tick, state = self._declared.tick, self._state
        return None if tick is None else lambda worker: tick(worker, state)

    def explain(self, frame: bytes, **numbers: int) -> str | None:
        """The exception that the function raises on `frame` when it runs as plain Python on a
        copy of the current state; None when it raises nothing."""
        from ringline.workers.packets import Meta

        meta = Meta(frame, **numbers)
        try:
            if self._declared.setup is None:
                self._function(meta.frame, meta)
            else:
                self._function(meta.frame, meta, self._python_state())
        except Exception as error:
            from ringline.workers.tiers.refusals import COMPARE

            if "truth value of an array" in str(error):
                return f"{COMPARE}{where(error)}"
            return sentence(error)
        return None

    def _python_state(self) -> Any:
        parts = [part.copy() if hasattr(part, "copy") else part for part in self._keep[0]]
        if self._shape is None or self._shape.holder is None:
            return parts[0]
        return tuple(parts) if self._shape.holder is tuple else self._shape.holder(*parts)

    def _check_arguments(self) -> None:
        code = getattr(self._function, "__code__", None)
        wanted = 2 if self._declared.setup is None else 3
        if code is None:
            raise PluginError(
                f"plugin {self.spec}: @packet_function marks a function, not "
                f"{type(self._function).__name__}"
            )
        if code.co_argcount != wanted or code.co_kwonlyargcount or code.co_flags & 0x0C:
            arguments = "(frame, meta)" if wanted == 2 else "(frame, meta, state)"
            because = "" if wanted == 2 else ", since it has a setup"
            raise PluginError(
                f"plugin {self.spec}: the function must take {arguments}{because}; it takes "
                f"({', '.join(code.co_varnames[: code.co_argcount])}) "
                f"({code.co_filename}, line {code.co_firstlineno})"
            )

    def _run_setup(self, worker: Worker) -> tuple[Any, list[Any], StateShape]:
        from ringline.workers.tiers import codegen, refusals

        assert self._declared.setup is not None
        try:
            state = self._declared.setup(worker)
        except (Exception, SystemExit) as error:
            raise PluginError(f"plugin {self.spec}: setup failed: {sentence(error)}") from error
        try:
            parts, holder = codegen.parts_of(self.spec, state)
        except PluginError as error:
            code = getattr(self._declared.setup, "__code__", None)
            raise PluginError(
                f"{error}{refusals.place(self._declared.setup) if code else ''}"
            ) from None
        return state, parts, codegen.shape_of(parts, holder)

    def _dry_run_setup(self, context: Context) -> StateShape:
        """The type of the state that setup returns; its memory is discarded."""
        worker = rehearsing_worker(context, self.options)
        state, _, shape = self._run_setup(worker)
        tick = self._declared.tick
        if tick is not None and rehearsal.is_needed(getattr(tick, "__globals__", {})):
            rehearsal.rehearse(lambda: tick(worker, state))
        return shape

    def _compile(self, context: Context) -> Any:
        """The generated loop around the function, compiled or from the cache.

        Without reference counts if possible: they double the time of a function that works
        on arrays of its state. A function that allocates needs them; a remark tells so.
        """
        from ringline.workers.tiers import (
            code_cache,
            codegen,
            jit_checksums,  # noqa: F401  # registers the checksums with numba, and `headers`
            jit_packets,  # noqa: F401  # registers field, resize and create with numba
        )

        title = f"{self._function.__module__}.{self._function.__qualname__}"
        loop_source = codegen.source(title, self._shape, cache=True, counted=False)
        holder = None if self._shape is None else self._shape.holder
        pieces = [loop_source, repr(self._shape), holder, str(context.debug)]
        # The source of the loop, and of the structs whose layout is compiled into it.
        folder = os.path.dirname(os.path.abspath(__file__))
        for ours in (
            *("codegen.py", "jit.py", "jit_packets.py", "jit_headers.py", "jit_checksums.py"),
            *("jit_lookup.py", "llvm/pieces.py", "../lookup/tables.h"),
            *("../batch.h", "../headers/types.h", "../../shm/types.h"),
        ):
            with open(os.path.join(folder, ours), encoding="utf-8") as file:
                pieces.append(file.read())
        stem = re.sub(r"\W", "_", title)[-80:]
        name = f"{stem}_{code_cache.fingerprint(self._function, *pieces)}"
        place = code_cache.folder()
        if place is not None:
            build = codegen.Build(self._function, self._shape, context.debug, place, name, title)
            try:
                return self._cached(build, place, name)
            except PluginError:
                raise
            except Exception:  # a damaged cache file, a full disk
                code_cache.forget(place, name)
        build = codegen.Build(self._function, self._shape, context.debug, None, name, title)
        return self._compile_new(build)[0]

    def _cached(self, build: Build, place: str, name: str) -> Any:
        """The loop from the cache; if it is not there, it is compiled and stored."""
        from ringline.workers.tiers import code_cache, codegen

        known = code_cache.known(place, name)
        if known is not None:
            way, *more = known[0].split()
            loop = build.loop(counted=way == codegen.COUNTED)
            self._uses |= set(more)
            self.remarks += known[1:]
            return loop
        loop, way = self._compile_new(build)
        code_cache.remember(place, name, [" ".join((way, *sorted(self._uses))), *self.remarks])
        return loop

    def _compile_new(self, build: Build) -> tuple[Any, str]:
        """The loop, and whether it is PLAIN or COUNTED."""
        from ringline.workers.tiers import codegen, jit
        from ringline.workers.tiers.llvm.pieces import pieces

        before = len(jit.used)
        with pieces():
            loop, way = self._compile_plain(build), codegen.PLAIN
            if loop is None:
                self._try_alone(build.dispatcher(counted=True))
                loop, way = build.compiled(counted=True), codegen.COUNTED
        if way == codegen.COUNTED:
            self.remarks += self._remarks_on(loop)
        # An overload of numba's is found by its type, not by a name in the function.
        self._uses.update(jit.used[before:])
        return loop, way

    def _compile_plain(self, build: Build) -> Any:
        """The loop without reference counts, or None when they are needed."""
        try:
            self._try_alone(build.dispatcher(counted=False))
            loop = build.compiled(counted=False)
        except Exception:
            return None  # compile with reference counts, or report the error of that
        # A function that it calls may have been compiled earlier with allocations.
        return None if _ALLOCATION.search(loop.inspect_llvm()) else loop

    def _try_alone(self, dispatcher: Any) -> None:
        """Compile the user's function without the loop, so that errors name only its lines."""
        from numba.core import types

        from ringline.workers.tiers import jit, refusals

        arguments = [jit.FRAME, jit.META]
        if self._shape is not None:
            arguments.append(self._shape.numba_type())
        try:
            dispatcher.compile(tuple(arguments))
        except Exception as error:
            if type(error).__module__.startswith("numba"):
                what = refusals.reason(str(error), self._function)
            else:
                # Without the traceback, whose lines are numba's own.
                what = sentence(error.with_traceback(None))
                what += refusals.place_of_name(self._function, str(error))
            raise PluginError(f"plugin {self.spec} does not compile: {what}") from error
        returned = dispatcher.overloads[tuple(arguments)].signature.return_type
        if not isinstance(returned, types.Integer):
            what = {"none": "nothing", "bool": "True or False"}.get(str(returned), str(returned))
            if isinstance(returned, types.misc.Optional):
                what = "nothing on one of its paths"
            if " generator(" in str(returned):
                what = "a generator, since it has a yield"
            raise PluginError(
                f"plugin {self.spec} returns {what}; a verdict is the number of a port or DROP"
                f"{refusals.place_of_return(self._function)}"
            )

    def _remarks_on(self, loop: Any) -> list[str]:
        """A remark if the compiled code allocates memory."""
        from ringline.workers.tiers import refusals

        if _ALLOCATION.search(loop.inspect_llvm()):
            return [
                f"plugin {self.spec} allocates memory (a copy of a slice, a new array, a list): "
                "that costs about 30 ns each time, and an exception leaks the memory"
                f"{refusals.place(self._function)}"
            ]
        return []
