"""Waiting for something to become true, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(probe: Callable[[], T], what: str, seconds: float = 60.0, step: float = 0.01) -> T:
    """Answers the first true value of `probe`; fails with `what` when none came in time.

    The time is for what never comes true: no machine that is only slow should need it.
    """
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {value!r}")
        time.sleep(step)


def hold(probe: Callable[[], bool], what: str, seconds: float, step: float = 0.02) -> None:
    """Fails with `what` if `probe` turns false before the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert probe(), f"no longer true: {what}"
        time.sleep(step)
