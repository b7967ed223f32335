"""Finds the plugin that a configuration names, and its tier.

| name                    | what                                                |
|-------------------------|-----------------------------------------------------|
| package.module:object   | an object of an installed module                    |
| ./folder/file.py:object | an object of a file                                 |
| ./folder/file.so:symbol | a plugin in C without any Python                    |
| name                    | an entry point of the group `ringline.plugins`      |

The object is a NativePlugin, a PacketFunction, or a class with `process(batch)`.
Loading runs user code, so only a worker, a dry-run child or a user's own test loads a plugin.
"""

from __future__ import annotations

import os
import sys

from ringline.shm._shm import lib
from ringline.shm.errors import PluginError
from ringline.workers.function import PacketFunction
from ringline.workers.tiers.native import NativePlugin, NativeTier, open_shared_object
from ringline.workers.tiers.tier import Tier, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

GROUP = "ringline.plugins"


def load(spec: str, folder: str | None = None) -> Tier:
    """Import the plugin `spec`. A relative file name is relative to `folder`, or to the working
    directory. Raises PluginError with what is wrong and where."""
    return tier_of(spec, find(spec, folder))


def find(spec: str, folder: str | None = None) -> Any:
    """The object that `spec` names. Raises PluginError."""
    if ":" not in spec and _is_file(spec):
        raise PluginError(f"plugin {spec} is a file: add the name of the object in it, {spec}:NAME")
    place, _, path = (spec if ":" in spec else _entry_point(spec)).rpartition(":")
    if _is_file(place):
        place = os.path.abspath(os.path.join(folder or "", os.path.expanduser(place)))
        if os.path.exists(place) and not os.path.isfile(place):  # opening a FIFO would block
            raise PluginError(f"plugin {spec}: {place} is not a regular file")
    if place.endswith(".so"):
        return open_shared_object(place, path)
    module = _import_file(spec, place) if _is_file(place) else _import_module(spec, place)
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise PluginError(
                f"plugin {spec}: {place} has no {path!r}{_others(module, path)}"
            ) from None
    return found


def tier_of(spec: str, found: Any) -> Tier:
    """The tier of a plugin object, not yet prepared. Raises PluginError for other objects."""
    if isinstance(found, NativePlugin):
        return NativeTier(spec, found)
    if isinstance(found, PacketFunction):
        from ringline.workers.tiers.compiled import CompiledTier

        return CompiledTier(spec, found)
    if isinstance(found, type) and callable(getattr(found, "process", None)):
        from ringline.workers.tiers.batch_tier import BatchTier

        return BatchTier(spec, found)
    if isinstance(found, type):
        raise PluginError(f"plugin {spec}: the class has no method process(self, batch)")
    if callable(found) and hasattr(found, "__code__"):
        code = found.__code__
        raise PluginError(
            f"plugin {spec} is a plain function: mark it with @packet_function "
            f"({code.co_filename}, line {code.co_firstlineno})"
        )
    raise PluginError(
        f"plugin {spec} must be a class with process(batch), a @packet_function or a "
        f"native_plugin(…), not an object of type {type(found).__name__}"
    )


def _is_file(place: str) -> bool:
    return place.endswith((".py", ".so")) or "/" in place


def _import_module(spec: str, name: str) -> ModuleType:
    try:
        try:
            __import__(name)
        except ModuleNotFoundError:
            if not sys.flags.no_site or "site" in sys.modules:
                raise
            import site  # start.py skips it, but its hooks find some packages

            site.main()
            __import__(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise PluginError(
                f"plugin {spec}: there is no module {missing!r} in this environment; install it, "
                f"or name a file: ./{name.rpartition('.')[2]}.py:…"
            ) from None
        raise PluginError(f"plugin {spec} does not import: {sentence(error)}") from error
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {spec} does not import: {sentence(error)}") from error
    return sys.modules[name]


def _import_file(spec: str, path: str) -> ModuleType:
    """Run the file as a module. The module's name holds a hash of the path, so that two files
    of the same name do not collide. Its folder is added to the search path, as if Python ran
    the file."""
    there = os.fsencode(path)
    name = f"ringline_plugin_{lib.rl_hash(there, len(there)):016x}"
    if name in sys.modules:
        return sys.modules[name]
    module = type(sys)(name)
    module.__file__ = path
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    except OSError as error:
        raise PluginError(f"plugin {spec}: {path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise PluginError(f"plugin {spec} does not import: {sentence(error)}") from error
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"plugin {spec} does not import: {sentence(error)}") from error
    return module


def _entry_point(name: str) -> str:
    """`package.module:object` of an entry point."""
    from importlib.metadata import entry_points  # takes 20 ms: only short names pay for it

    known = {point.name: point.value for point in entry_points(group=GROUP)}
    if name not in known:
        raise PluginError(
            f"plugin {name!r}: no installed package has an entry point of this name in the group "
            f"{GROUP}; there are: {', '.join(sorted(known)) or 'none'}"
        )
    return known[name]


def _others(module: ModuleType, path: str) -> str:
    """The plugins of the module, as the end of the sentence."""
    import difflib

    plugins = [
        name
        for name, value in vars(module).items()
        if isinstance(value, (NativePlugin, PacketFunction))
        or (isinstance(value, type) and hasattr(value, "process"))
    ]
    close = difflib.get_close_matches(path, plugins, 1, 0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; its plugins are: {', '.join(plugins)}" if plugins else ""
