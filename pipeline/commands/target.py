"""What the first argument of `ringline run` and `ringline check` is: a configuration or a plugin.

| argument                                            | what                |
|-----------------------------------------------------|---------------------|
| ends with `.toml`                                   | a configuration     |
| has a `:`, as in package.module:object              | a plugin            |
| the name of an entry point, such as `forward`       | a plugin            |
| another file or folder, or a path with `/`          | a configuration     |
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.metadata import entry_points

from ringline.pipeline.configuration import builtin, schema
from ringline.pipeline.configuration.config import QUEUES_MAX
from ringline.pipeline.configuration.forms import DEVICES, check_plugin
from ringline.pipeline.configuration.toml import did_you_mean, shown
from ringline.shm.errors import UsageError
from ringline.workers.captures.captures import is_capture

KINDS = tuple(f"{device.split(':')[0]}:" for device in DEVICES)  # how the name of a device begins
GROUP = "ringline.plugins"  # as in workers/tiers/loading.py, which runs user code


def examined(what: str | None, given: builtin.Arguments) -> schema.Examined:
    """The configuration that `what` and the arguments `given` make, with its mistakes.

    what: a configuration file or the name of a plugin; None: the arguments say all.
    Raises UsageError when `what` is neither, or when a configuration file and arguments that
    are not for it are both given.
    """
    if what is None or names_a_plugin(what):
        queues = _queues(given) if given.queues is None else given.queues
        return builtin.examine(replace(given, plugin=what, queues=queues))
    if keys := given.given():
        arguments = ", ".join(builtin.ARGUMENTS[key] for key in keys)
        raise UsageError(
            f"{arguments} cannot be given with a configuration file: write {', '.join(keys)} in "
            f"{what}"
        )
    return schema.examine(what)


def _queues(given: builtin.Arguments) -> int | None:
    """As many queues as the first interface of the kernel among the devices; None without any."""
    if not given.devices:
        return None
    from ringline.pipeline.ports.interfaces import interface

    for port in builtin.examine(given).config.ports:
        found = interface.find(port.address) if port.kernel_interface else None
        if found is not None and (port.tap is None or found.queues == 1):  # a TAP has any number
            return min(found.queues, QUEUES_MAX)
    return None


def names_a_plugin(text: str) -> bool:
    """Whether `text` names a plugin; otherwise it names a configuration file, which may be
    missing. Raises UsageError when it can be neither."""
    if text.endswith(".toml"):
        return False
    if ":" in text:
        if text.startswith(KINDS) and not os.path.exists(text):
            raise UsageError(f"{text} is a device and no plugin: write PLUGIN --device {text}")
        wrong = check_plugin(text)
        if wrong and not os.path.exists(text):
            raise UsageError(f"the name of a plugin {wrong}")
        return wrong is None
    if text.endswith((".py", ".so")):
        raise UsageError(f"{text} is a file: add the name of the plugin in it, {text}:NAME")
    if _is_capture(text):
        raise UsageError(f"{text} is a capture: write PLUGIN --replay {text}")
    if text in plugins():
        return True
    if "/" in text or os.path.lexists(text):
        return False
    near = did_you_mean(text, plugins())
    if os.path.exists(f"{text}.toml"):
        near = f"; did you mean {text}.toml?"
    raise UsageError(
        f"{shown(text)} is neither a configuration (FILE.toml) nor a plugin "
        f"(package.module:object, ./file.py:object, ./file.so:symbol, or one of "
        f"{', '.join(plugins()) or 'the installed ones: none'}){near}"
    )


def plugins() -> list[str]:
    """The names of the installed plugins: the entry points of the group GROUP."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def _is_capture(path: str) -> bool:
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return is_capture(file.read(6))
    except (OSError, ValueError):
        return False
