"""A failure detector: for how long a process has not changed its heartbeat.

Guarantees (tests in tests/pipeline/supervisor/test_heartbeat.py):
 - time in which the supervisor itself does not run adds at most `cap` seconds of silence
   (test_silence_counts_only_while_the_supervisor_runs, test_a_pause_of_the_machine_ends_no_child)
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Heartbeat:
    """The last value of a heartbeat counter and the seconds for which it has not changed.

    If the whole machine stops for a second, no heartbeat changes and no process is at
    fault: hence the cap in `check`.
    """

    value: int = -1
    checked_at: float = 0.0
    silence: float = 0.0

    def check(self, value: int, now: float, cap: float) -> Heartbeat:
        """The state after reading `value` at `now`; one check adds at most `cap` seconds."""
        if value != self.value:
            return Heartbeat(value, now)
        added = min(now - self.checked_at, cap)
        return replace(self, checked_at=now, silence=self.silence + added)
