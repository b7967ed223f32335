"""A failure detector: for how long a process has not changed its heartbeat.

Guarantees (tests in tests/pipeline/supervisor/test_heartbeat.py):
 - time in which the supervisor itself does not run is no silence
   (test_silence_counts_only_while_the_supervisor_runs)
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Heartbeat:
    """The last value of a heartbeat counter and the seconds for which it has not changed.

    If the whole machine stops for a second, no heartbeat changes and no process is at
    fault: so a check that comes late counts nothing.
    """

    value: int = -1
    checked_at: float = 0.0
    silence: float = 0.0

    def check(self, value: int, now: float, cap: float) -> Heartbeat:
        """The state after reading `value` at `now`. The time since the last check counts as
        silence only if it is at most `cap` seconds: else this process did not run either."""
        if value != self.value:
            return Heartbeat(value, now)
        passed = now - self.checked_at
        added = passed if passed <= cap else 0.0
        return replace(self, checked_at=now, silence=self.silence + added)
