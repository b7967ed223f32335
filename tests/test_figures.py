"""What tests record with `record_property` is shown at the end of a test run."""

from __future__ import annotations

from typing import Any

import pytest

from . import conftest


class Reporter:
    """Stands for pytest's terminal."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str, **_: Any) -> None:
        self.lines.append(f"== {title}")

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_a_figure_is_shown_once_with_the_name_of_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "figures", [])
    monkeypatch.setattr(conftest, "complaints", [])
    shown: Any = Reporter()
    conftest.pytest_terminal_summary(shown)
    assert shown.lines == []
    for when in ("setup", "call", "teardown"):
        report = pytest.TestReport(
            "tests/test_one.py::test_one",
            ("tests/test_one.py", 1, "test_one"),
            {},
            "passed",
            None,
            when,  # type: ignore[arg-type]
            user_properties=[("for 1,000 packets", "12.5 doorbells")],
        )
        conftest.pytest_runtest_logreport(report)
    conftest.pytest_terminal_summary(shown)
    assert shown.lines == [
        "== figures",
        "tests/test_one.py::test_one: for 1,000 packets: 12.5 doorbells",
    ]
