"""The C tier: a function in a compiled module, called by the loop once per batch.

    from my_package._fast import ffi, lib

    def setup(worker):
        table = ffi.new("uint32_t[256]")
        ...
        return table                     # the C function finds it in batch->state

    fast = native_plugin(ffi.addressof(lib, "fast"), setup=setup, options=[...])

`fast` in C is what RL_PLUGIN of plugin.h makes. A worker that runs such a plugin
imports neither numpy nor numba. A shared object without any Python is named
`./file.so:symbol` in the configuration and needs no such wrapper.
"""

from __future__ import annotations

from ringline.shm._shm import ffi as shm_ffi
from ringline.shm.errors import PluginError
from ringline.workers._workers import ffi, lib
from ringline.workers.tiers.tier import Context, Tier, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ringline.workers.options import Option
    from ringline.workers.worker import Worker


class NativePlugin:
    """A plugin in C as its module exports it; made by `native_plugin`."""

    def __init__(
        self,
        plugin: Any,
        setup: Callable[[Worker], Any] | None,
        tick: Callable[[Worker, Any], None] | None,
        options: Sequence[Option],
    ) -> None:
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
) -> NativePlugin:
    """A plugin in C.

    `plugin` is the address of its `struct rl_plugin`: a cffi pointer of any module, or a
    number. `setup(worker)` returns the function's state: a cffi pointer, a buffer, an
    address, or None for the named state that the plugin declares in C. `tick(worker,
    state)` is called about once a second.
    """
    return NativePlugin(plugin, setup, tick, options)


class NativeTier(Tier):
    """A loaded NativePlugin."""

    tier = "C"

    def __init__(self, spec: str, declared: NativePlugin) -> None:
        super().__init__(spec, declared.options)
        self._declared = declared
        self._plugin: Any = None
        self._state: Any = None

    def prepare(self, context: Context) -> None:
        """Check that the plugin was compiled against this version of plugin.h."""
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
                f"plugin {self.spec} was not compiled against this ringline's plugin.h "
                f"(its version is {plugin.abi}, this one's {lib.RL_PLUGIN_ABI}): compile it again"
            )
        self._plugin = plugin
        self.function = int(ffi.cast("uintptr_t", plugin.function))

    def setup(self, worker: Worker) -> None:
        """Run the plugin's setup and keep its state alive."""
        state = None
        if self._declared.setup is not None:
            try:
                state = self._declared.setup(worker)
            except Exception as error:
                raise PluginError(f"plugin {self.spec}: setup failed: {sentence(error)}") from error
        if state is None and self._plugin.state_bytes:
            state = worker.memory("state", self._plugin.state_bytes)
        self._state = state
        try:
            self.state = _address(state)
        except TypeError:
            raise PluginError(
                f"plugin {self.spec}: setup returned {type(state).__name__}; C takes a cffi "
                "pointer, a buffer, an address or None"
            ) from None

    @property
    def ticks(self) -> Callable[[Worker], None] | None:
        """The plugin's tick, its state filled in."""
        tick, state = self._declared.tick, self._state
        return None if tick is None else lambda worker: tick(worker, state)


def _address(state: Any) -> int:
    """Where the memory of `state` begins; TypeError when it has none."""
    if state is None:
        return 0
    if isinstance(state, int):
        return state
    if isinstance(state, shm_ffi.CData):
        return int(ffi.cast("uintptr_t", state))
    return int(ffi.cast("uintptr_t", ffi.from_buffer(state)))


def open_shared_object(path: str, symbol: str) -> NativePlugin:
    """The plugin `symbol` of the shared object at `path`.

    Raises PluginError when there is no such file, or no such symbol in it.
    """
    import ctypes  # cffi reaches only symbols that it was told of when it was compiled

    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise PluginError(f"plugin {path}:{symbol} cannot be loaded: {error}") from None
    try:
        address = ctypes.addressof(ctypes.c_char.in_dll(library, symbol))
    except ValueError:
        raise PluginError(
            f"plugin {path}:{symbol}: {path} has no symbol {symbol}; RL_PLUGIN({symbol}, …) "
            "of plugin.h makes it"
        ) from None
    return NativePlugin(address, None, None, ())
