"""What the demo prints: headings, replies, a progress bar; colours on a terminal only.

Owns: widths and colours. Lines have at most 78 columns.
"""

from __future__ import annotations

import os
import sys
import textwrap

WIDTH = 78
_TERMINAL = sys.stdout.isatty()
_COLOURS = _TERMINAL and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def paint(text: str, *styles: str) -> str:
    if not _COLOURS or not text:
        return text
    codes = ";".join(_CODES[style] for style in styles)
    return f"\x1b[{codes}m{text}\x1b[0m"


def heading(text: str) -> None:
    print(f"\n{paint(text, 'bold')}\n{paint('-' * WIDTH, 'dim')}")


def say(text: str) -> None:
    print(textwrap.fill(text, WIDTH))


def command(text: str) -> None:
    """A command as a person would type it."""
    lines = textwrap.wrap(text, WIDTH - 4, subsequent_indent="    ", break_on_hyphens=False)
    print(paint("> " + "\n  ".join(lines), "cyan"))


def reply(mark: str, text: str, style: str) -> None:
    """What came back: a word in colour, and what there is to say."""
    lines = textwrap.wrap(text, WIDTH - 9, break_on_hyphens=False)
    print(f"  {paint(f'{mark:5}', 'bold', style)}  " + "\n         ".join(lines))


class Progress:
    """A bar that fills up; on a terminal only."""

    CELLS = 40

    def __init__(self, label: str, total: int):
        self.label, self.total, self.done, self.shown = label, total, 0, -1

    def step(self) -> None:
        self.done += 1
        filled = self.CELLS * self.done // self.total
        if _TERMINAL and filled != self.shown:
            self.shown = filled
            bar = "#" * filled + "." * (self.CELLS - filled)
            print(f"\r  {self.label:16} [{bar}] {self.done:4}/{self.total}", end="", flush=True)
        if _TERMINAL and self.done == self.total:
            print()
