"""`ringline top`: the live table of a running instance."""

from __future__ import annotations

import time

from ringline.pipeline.telemetry.status_client import ask
from ringline.pipeline.terminal.display import display
from ringline.shm.errors import EnvironmentLacks

INTERVAL = 1.0  # seconds between two snapshots


def top(name: str | None) -> None:
    """Show the instance `name` every INTERVAL seconds until it ends or Ctrl-C.

    None means the only instance that runs. Raises as `ask` does when the first
    request fails; a later failure ends the command with a message.
    """
    snapshot = ask(name)
    shown = display()
    try:
        while True:
            shown.show(snapshot)
            time.sleep(INTERVAL)
            try:
                snapshot = ask(snapshot.name)
            except EnvironmentLacks as error:
                shown.announce(str(error))
                return
    except KeyboardInterrupt:
        pass
    finally:
        shown.close()
