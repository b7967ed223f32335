"""A link that goes up or down is seen at once, not at the next look of the driver."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .operator_harness import HEAD, Operator
from .veth_harness import TIMEOUT, Veths, arrive, ip, port, wait_until
from .xdp_harness import status

# Runs a configuration with a driver that looks at its links once an hour by itself.
SELDOM = """
import sys
from ringline.pipeline.configuration.schema import load
from ringline.pipeline.supervisor.children import Programs
from ringline.pipeline.supervisor.supervisor import Supervisor

program = "import sys; from ringline.pipeline.driver import process as driver; "
program += "driver.STATISTICS_EVERY = 3600.0; sys.exit(driver.main())"
programs = Programs(driver=(sys.executable, "-P", "-c", program))
outcome = Supervisor(load(sys.argv[1]), programs=programs).run()
print(outcome.error or "all well")
"""


@pytest.mark.parametrize("kind", ["xdp", "packet"])
def test_a_link_is_seen_without_waiting_for_the_next_look(
    operator: Operator, veths: Veths, kind: str
) -> None:
    """Down, up, removed and made again. The log has a line for each."""
    config = operator.write(HEAD + port("a", kind) + "\n" + port("b", kind))
    process = subprocess.Popen(
        [*Veths.within(veths.middle), sys.executable, "-c", SELDOM, str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def is_up() -> bool:
        return bool(status(operator.name)["ports"]["b"]["link"]["up"])

    try:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        source = veths.wire("a")
        for _ in range(2):
            ip("-n", veths.middle, "link", "set", "vb", "down")
            wait_until(lambda: not is_up(), "no link")
            ip("-n", veths.middle, "link", "set", "vb", "up")
            wait_until(is_up, "a link")
            arrive(source, veths.wire("b"))
        ip("-n", veths.middle, "link", "del", "vb")
        wait_until(lambda: not is_up(), "no link")
        veths.join("b")
        wait_until(is_up, "a link")
        arrive(source, veths.wire("b"))
    finally:
        process.terminate()
        out, errors = process.communicate(timeout=TIMEOUT)
    assert out.strip() == "all well", errors
    said = [line.partition(": the link is ")[2] for line in errors.splitlines()]
    assert [line.partition(",")[0] for line in said if line][:4] == ["down", "up", "down", "up"]
