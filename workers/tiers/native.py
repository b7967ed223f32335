"""The C tier: a function in a compiled module, which the loop calls once per batch.

    from my_package._fast import ffi, lib

    def setup(worker):
        table = ffi.new("uint32_t[256]")
        ...
        return table                     # batch->state in the C function

    fast = native_plugin(ffi.addressof(lib, "fast"), setup=setup, options=[...])

In C, RL_PLUGIN of plugin.h defines `fast`. A worker that runs such a plugin imports neither
NumPy nor numba. A shared object without Python needs no such wrapper: its name in the
configuration is `./file.so:symbol`.
"""

from __future__ import annotations

from ringline.shm._shm import ffi as shm_ffi
from ringline.shm.errors import PluginError
from ringline.workers._workers import ffi, lib
from ringline.workers.lookup.maps import Map
from ringline.workers.lookup.prefixes import Prefixes
from ringline.workers.named.values import Counter, Counters, Gauge, Histogram, address_of
from ringline.workers.tiers.tier import Context, Tier, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ringline.workers.named.part import Part
    from ringline.workers.options import Option
    from ringline.workers.worker import Worker


class NativePlugin:
    """A plugin in C; `native_plugin` makes it."""

    def __init__(
        self,
        plugin: Any,
        setup: Callable[[Worker], Any] | None,
        tick: Callable[[Worker, Any], None] | None,
        options: Sequence[Option],
        merge: Callable[[Part, Part], Part] | None = None,
        collect: Callable[[Worker, Any], Any] | None = None,
        present: Callable[[Part], Any] | None = None,
    ) -> None:
        self.merge = merge
        self.collect = collect
        self.present = present
        self.plugin = plugin
        self.setup = setup
        self.tick = tick
        self.options = tuple(options)


def native_plugin(
    plugin: Any,
    *,
    setup: Callable[[Worker], Any] | None = None,
    tick: Callable[[Worker, Any], None] | None = None,
    options: Sequence[Option] = (),
    merge: Callable[[Part, Part], Part] | None = None,
    collect: Callable[[Worker, Any], Any] | None = None,
    present: Callable[[Part], Any] | None = None,
) -> NativePlugin:
    """Declare a plugin in C, for the configuration to name.

    plugin: the address of its `struct rl_plugin`: a cffi pointer of any module, or an integer.
        Of a shared object without Python, ctypes finds it:

            library = ctypes.CDLL(str(Path(__file__).parent / "fast.so"))
            fast = native_plugin(ctypes.addressof(ctypes.c_char.in_dll(library, "fast")), …)

    setup: `setup(worker)` returns the state, `batch->state` in C: a cffi pointer, a writable
        buffer such as a NumPy array, an address, a prefix table, a map, a counter or a gauge; a
        tuple of these becomes an array of their addresses (uint64_t); or None for the named state
        that the plugin declares in C. ringline keeps a reference to it while the worker runs.
        In C a counter is a uint64_t, with a label one for each value; a gauge is a double.
    tick: `tick(worker, state)` is called about once a second.
    options: the options that the plugin accepts; their values are in `worker.options`.
    merge, collect, present: for `ringline analyze`, as of `packet_function`.
    """
    return NativePlugin(plugin, setup, tick, options, merge, collect, present)


class NativeTier(Tier):
    """A loaded plugin in C."""

    tier = "C"

    def __init__(self, spec: str, declared: NativePlugin) -> None:
        super().__init__(spec, declared.options)
        self._declared = declared
        self._plugin: Any = None
        self._state: Any = None
        self._addresses: Any = None

    def prepare(self, context: Context) -> None:
        """Check that the plugin was compiled with this version of plugin.h. Raises PluginError."""
        try:
            plugin = ffi.cast("struct rl_plugin *", self._declared.plugin)
        except TypeError:
            plugin = ffi.NULL
        if not plugin:
            raise PluginError(
                f"plugin {self.spec}: native_plugin takes the address of a struct rl_plugin, "
                f"not {self._declared.plugin!r}"
            )
        if plugin.abi != lib.RL_PLUGIN_ABI or plugin.batch_bytes != ffi.sizeof("struct rl_batch"):
            raise PluginError(
                f"plugin {self.spec} was compiled with another version of plugin.h "
                f"({plugin.abi}, and this ringline has {lib.RL_PLUGIN_ABI}): compile it again"
            )
        self._plugin = plugin
        self.reads_times = bool(plugin.flags & lib.RL_PLUGIN_READS_TIMES)
        self.function = int(ffi.cast("uintptr_t", plugin.function))

    def setup(self, worker: Worker) -> None:
        """Run the plugin's setup and keep a reference to its state. Raises PluginError."""
        self._name_reasons(worker)
        state = None
        if self._declared.setup is not None:
            try:
                state = self._declared.setup(worker)
            except (Exception, SystemExit) as error:
                raise PluginError(f"plugin {self.spec}: setup failed: {sentence(error)}") from error
        if state is None and self._plugin.state_bytes:
            state = worker.memory("state", self._plugin.state_bytes)
        self._state = state
        try:
            if isinstance(state, tuple):
                self._addresses = ffi.new("uint64_t[]", [_address(part) for part in state])
                self.state = _address(self._addresses)
            else:
                self.state = _address(state)
        except TypeError:
            raise PluginError(
                f"plugin {self.spec}: setup must return a cffi pointer, a buffer, an address, a "
                "prefix table, a map, a counter, a gauge, a tuple of these or None, not "
                f"{_wrong(state)}"
            ) from None

    def _name_reasons(self, worker: Worker) -> None:
        """Name the drop reasons that the plugin declares in C: rl_drop_reason(i) is the i-th."""
        names = self._plugin.reasons
        for index in range(lib.RL_REASONS_MAX + 1):
            if not names or not names[index]:
                return
            name = ffi.string(names[index]).decode("utf-8", "replace")
            try:
                verdict = worker.drop_reason(name)
            except PluginError as error:
                raise PluginError(f"plugin {self.spec}: {error}") from None
            if verdict != lib.RL_VERDICT_REASON + index:
                raise PluginError(
                    f"plugin {self.spec}: RL_PLUGIN_WITH_REASONS names {name!r} twice, or in "
                    "another order than before"
                )

    def call_collect(self, collect: Callable[..., Any], worker: Worker) -> Any:
        """What the plugin's `collect` returns in an analysis, called with its state."""
        return collect(worker, self._state)

    @property
    def ticks(self) -> Callable[[Worker], None] | None:
        """The plugin's tick, called with its state; or None."""
        tick, state = self._declared.tick, self._state
        return None if tick is None else lambda worker: tick(worker, state)


def _address(state: Any) -> int:
    """The address of the memory of `state`; raises TypeError when it has none."""
    if state is None:
        return 0
    if isinstance(state, int):
        return state
    if isinstance(state, (Prefixes, Map)):
        return state.address
    if isinstance(state, (Counter, Counters, Gauge, Histogram)):
        return address_of(state)
    if isinstance(state, shm_ffi.CData):
        return int(ffi.cast("uintptr_t", state))
    return int(ffi.cast("uintptr_t", ffi.from_buffer(state)))


def _wrong(state: Any) -> str:
    """What has no address: the type of the state, or of the first such part of a tuple."""
    if isinstance(state, tuple):
        for number, part in enumerate(state):
            try:
                _address(part)
            except TypeError:
                return f"{type(part).__name__}, which is part {number} of the tuple"
    return type(state).__name__


def open_shared_object(path: str, symbol: str) -> NativePlugin:
    """The plugin `symbol` of the shared object at `path`.

    Raises PluginError when there is no such file, or no such symbol in it.
    """
    import ctypes  # cffi in API mode knows only the symbols of its declarations

    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise PluginError(f"plugin {path}:{symbol} cannot be loaded: {error}") from None
    try:
        address = ctypes.addressof(ctypes.c_char.in_dll(library, symbol))
    except ValueError:
        raise PluginError(
            f"plugin {path}:{symbol}: {path} has no symbol {symbol}; RL_PLUGIN({symbol}, …) "
            "of plugin.h defines it"
        ) from None
    return NativePlugin(address, None, None, ())
