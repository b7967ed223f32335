"""The token bucket that limits what a worker says."""

from __future__ import annotations

from ringline.shm.bucket import Bucket


def test_a_bucket_allows_a_burst_and_a_rate() -> None:
    bucket = Bucket(3, 2.0)
    assert [bucket.take(10.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [bucket.take(10.5) for _ in range(2)] == [True, False]
    assert [bucket.take(11.5) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True] * 3 + [False], "no more than a burst"


def test_a_clock_that_goes_back_allows_nothing() -> None:
    bucket = Bucket(1, 1.0)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert bucket.take(6.0)
