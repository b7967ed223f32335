"""`ringline status`: what a running instance is doing, as text or JSON."""

from __future__ import annotations

import json
import time

from ringline.pipeline.telemetry import report
from ringline.pipeline.telemetry.status_client import ask
from ringline.pipeline.terminal import table

RATES_OVER = 0.5  # seconds between the two snapshots that rates are computed from


def status(name: str | None, *, as_json: bool) -> str:
    """The state of the instance `name` with its current rates, or its report as JSON.

    None means the only instance that runs. Raises as `ask` does.
    """
    before = ask(name)
    if as_json:
        return json.dumps(report.lay_out(before), indent=2)
    time.sleep(RATES_OVER)
    return table.text(table.board(before, ask(before.name)))
