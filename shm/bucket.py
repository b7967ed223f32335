"""A token bucket: how many lines a worker may say.

Both ends use it: the worker, so that a plugin that says too much costs little, and the supervisor,
which does not trust the worker (tests/shm/test_bucket.py: test_a_bucket_allows_a_burst_and_a_rate).
"""

from __future__ import annotations


class Bucket:
    """Allows `burst` things at once, and `per_second` more each second."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more thing is allowed at `now`, in seconds of a monotonic clock."""
        if self._at is not None:
            grown = max(0.0, now - self._at) * self._per_second
            self._left = min(float(self._burst), self._left + grown)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
