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

import _frozen_importlib as importlib_core  # `importlib.util` takes some milliseconds
import _frozen_importlib_external as importing
import os
import sys

from ringline.shm.errors import PluginError, reason_of
from ringline.workers.function import PacketFunction
from ringline.workers.tiers.native import NativePlugin, NativeTier, open_shared_object
from ringline.workers.tiers.tier import Tier, hides_python, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

GROUP = "ringline.plugins"


def load(spec: str, folder: str | None = None) -> Tier:
    """Import the plugin `spec`. A relative file name is relative to `folder`, or to the working
    directory. Raises PluginError with what is wrong and where."""
    found, module = _find(spec, folder)
    tier = tier_of(spec, found)
    tier.version = _version(module)
    return tier


def find(spec: str, folder: str | None = None) -> Any:
    """The object that `spec` names. Raises PluginError."""
    return _find(spec, folder)[0]


def find_with_file(spec: str, folder: str | None = None) -> tuple[Any, str | None, str]:
    """The object that `spec` names, its file if it has one, and its version, which may be "".
    Raises PluginError."""
    found, module = _find(spec, folder)
    file = getattr(module, "__file__", None)
    if module is None:
        file = os.path.join(folder or "", os.path.expanduser(spec.rpartition(":")[0]))
    return found, file, _version(module) or ""


def _find(spec: str, folder: str | None) -> tuple[Any, ModuleType | None]:
    """The object that `spec` names, and the module that has it. Raises PluginError."""
    if ":" not in spec and _is_file(spec):
        raise PluginError(f"plugin {spec} is a file: add the name of the object in it, {spec}:NAME")
    place, _, path = (spec if ":" in spec else _entry_point(spec)).rpartition(":")
    if _is_file(place):
        place = os.path.abspath(os.path.join(folder or "", os.path.expanduser(place)))
        if os.path.exists(place) and not os.path.isfile(place):  # opening a FIFO would block
            raise PluginError(f"plugin {spec}: {place} is not a regular file")
    if place.endswith(".so"):
        return open_shared_object(place, path), None
    if _is_file(place):
        module = _import_file(spec, place)
    else:
        module = _import_module(spec, place, folder or os.getcwd())
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise PluginError(
                f"plugin {spec}: {place} has no {path!r}{_others(module, path)}"
            ) from None
    return found, module


def _version(module: ModuleType | None) -> str | None:
    """The `__version__` of a module, or of the package that it belongs to; "" without one, None for
    a plugin that comes with ringline: the supervisor looks the version of ringline up, which takes
    30 ms."""
    package = module.__name__.partition(".")[0] if module is not None else ""
    if package == "ringline":
        return None
    for holder in (module, sys.modules.get(package)):
        version = getattr(holder, "__version__", None)
        if isinstance(version, str):
            return version
    return ""


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


def _import_module(spec: str, name: str, folder: str) -> ModuleType:
    _put_first_if_found_in(folder, name.partition(".")[0])
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise PluginError(
                f"plugin {spec}: there is no module {missing!r} in this environment; install it, "
                f"or name a file: ./{name.rpartition('.')[2]}.py:…"
            ) from None
        raise _does_not_import(spec, error) from error
    except (Exception, SystemExit) as error:
        raise _does_not_import(spec, error) from error
    return sys.modules[name]


def _import_file(spec: str, path: str) -> ModuleType:
    """Run the file as Python runs a script: its folder comes first in the search path, before
    site-packages and the current folder.

    The module has the name that `import` would give it: what numba caches beside the file under
    this name loads wherever the file can be imported. So a file that was imported already is not
    run again. Of several files with one name, the name belongs to the one that was used last.
    """
    real = os.path.realpath(path)
    folder = os.path.dirname(real)  # Python, too, follows a link to a script
    stem = os.path.basename(path).removesuffix(".py")
    if stem in sys.stdlib_module_names - {"antigravity", "this"}:  # these two do something
        try:  # noqa: SIM105  # contextlib takes some milliseconds
            __import__(stem)  # before this file hides it
        except ImportError:
            pass
    _put_first(os.path.dirname(path), folder)
    module = _files.get(path)
    if module is not None:
        sys.modules[module.__name__] = module
        return module
    name = _module_name(path)
    there = sys.modules.get(name)
    if there is not None and os.path.realpath(getattr(there, "__file__", None) or "") == real:
        return there
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    except OSError as error:
        raise PluginError(f"plugin {spec}: {path} cannot be read: {reason_of(error)}") from None
    except (SyntaxError, ValueError) as error:
        raise _does_not_import(spec, error) from error
    location = importing.spec_from_file_location(
        name, path, loader=importing.SourceFileLoader(name, path)
    )
    assert location is not None
    module = importlib_core.module_from_spec(location)
    _forget_neighbours_of_others(folder)
    before = set(sys.modules)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _does_not_import(spec, error) from error
    finally:
        _neighbours.setdefault(folder, set()).update(sys.modules.keys() - before)
    _files[path] = module
    return module


_files: dict[str, ModuleType] = {}  # the plugin files that were run, by path
_neighbours: dict[str, set[str]] = {}  # the modules that the files of a folder brought in


def _module_name(path: str) -> str:
    """The stem of the file, or `plugin_` and the stem when another module, such as one of
    Python's own, has that name already."""
    stem = os.path.basename(path).removesuffix(".py")
    # A dot would be a package; numba refuses what is not text.
    name = "".join("_" if letter == "." or not letter.isprintable() else letter for letter in stem)
    there = sys.modules.get(name)
    if there is None or there in _files.values():
        return name
    same = os.path.realpath(getattr(there, "__file__", None) or "") == os.path.realpath(path)
    return name if same else f"plugin_{name}"


def _put_first(*folders: str) -> None:
    """Move the folders to the beginning of the search path; the last one becomes the first."""
    for folder in folders:
        sys.path[:] = [folder, *(other for other in sys.path if other != folder)]


def _put_first_if_found_in(folder: str, name: str) -> None:
    """Put `folder` first if the module `name` is there and nowhere before: what the module
    imports then comes from its folder, as if Python ran it with `-m`."""
    if name in sys.modules or folder not in sys.path:
        return
    for finder in sys.meta_path:
        found = finder.find_spec(name, None)
        if found is not None:
            places = [found.origin or "", *(found.submodule_search_locations or ())]
            if any(place.startswith(os.path.join(folder, name)) for place in places):
                _put_first(folder)
            return


def _forget_neighbours_of_others(folder: str) -> None:
    """Forget modules that plugins of other folders imported from beside them, if `folder` has a
    module of the same name: a test may run the plugins of several folders in one process."""
    for other, names in _neighbours.items():
        for name in [] if other == folder else sorted(names):
            if "." in name or name not in sys.modules:
                continue
            file = getattr(sys.modules[name], "__file__", None) or ""
            here = os.path.join(folder, name)
            if file.startswith(os.path.join(other, "")) and (
                os.path.exists(f"{here}.py") or os.path.exists(here)
            ):
                for inner in [inner for inner in sys.modules if f"{inner}.".startswith(f"{name}.")]:
                    del sys.modules[inner]


def _does_not_import(spec: str, error: BaseException) -> PluginError:
    hint = "" if isinstance(error, SystemExit | SyntaxError) else hides_python()
    return PluginError(f"plugin {spec} does not import: {sentence(error)}{hint}")


def _entry_point(name: str) -> str:
    """`package.module:object` of an entry point."""
    from importlib.metadata import entry_points  # takes 20 ms: only short names pay for it

    known = {point.name: point.value for point in entry_points(group=GROUP)}
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, 1)
        raise PluginError(
            f"plugin {name!r}: no installed package has an entry point of this name in the group "
            f"{GROUP}; there are: {', '.join(sorted(known)) or 'none'}"
            + (f"; did you mean {close[0]!r}?" if close else "")
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
