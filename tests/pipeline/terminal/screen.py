"""A terminal in memory: what its screen shows after a program has written to it.

It knows the control sequences that the live table uses; another one is an error of the test.
"""

from __future__ import annotations

import re

SEQUENCE = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """A screen of `rows` x `columns` characters; `lines` is what it shows."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.lines = [""] * rows
        self.row = self.column = 0

    def write(self, text: str) -> Screen:
        at = 0
        while at < len(text):
            found = SEQUENCE.match(text, at)
            assert found is not None, f"unknown to the screen: {text[at : at + 20]!r}"
            at = found.end()
            argument, letter, control, words = found.groups()
            if words is not None:
                self._put(words)
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self._down()
            else:
                self._obey(argument, letter)
        return self

    def _put(self, words: str) -> None:
        for character in words:
            if self.column == self.columns:
                self.column = 0
                self._down()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        if self.row == self.rows - 1:
            self.lines = [*self.lines[1:], ""]
        else:
            self.row += 1

    def _obey(self, argument: str, letter: str) -> None:
        number = int(argument) if argument.isdigit() else 1
        if letter == "A":
            self.row = max(self.row - number, 0)
        elif letter == "K":
            assert argument == "2"
            self.lines[self.row] = ""
        elif letter == "J":
            assert argument == "2"
            self.lines = [""] * self.rows
        elif letter == "H":
            self.row = self.column = 0
        else:
            assert letter in "mhl", f"unknown to the screen: {argument}{letter}"
