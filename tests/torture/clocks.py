"""Traffic while the clock of the servers' machine is set back and forth, by seconds and by days.

Primary and replica have one clock. What has no deadline stays whatever the clock says; what was due is gone on both;
deadlines are those that were set. Leases and waits go by another clock and end in time: else a command would not return.
"""

from __future__ import annotations

import time

from harness.clock import WallClock
from harness.server import Fleet

from .pairs import Round

# Seconds ahead of the true time.
SHIFTS = (0, 1, -1, 61, -61, 3_600, -3_600, 86_400, -86_400, 30 * 86_400)


TIMERS_GO_ON_SECONDS = 4.0


class Clocks(Round):
    """A round of traffic; before each phase, and within it, the clock is set."""

    def __init__(self, fleet: Fleet, seed: int):
        super().__init__(fleet, seed)
        fleet.folder.mkdir(parents=True, exist_ok=True)
        self.clock = WallClock(fleet.folder)
        self.shift = 0
        self.sets = 0
        fleet.environment |= self.clock.environment

    @property
    def figures(self) -> dict[str, int]:
        return {"commands while clocks were set": self.commands, "times a clock was set": self.sets}

    def now_ms(self) -> int:
        return int((time.time() + self.shift) * 1_000)

    def _set(self) -> None:
        self.shift = self.traffic.rng.choice(SHIFTS)
        self.clock.set(self.shift)
        self.sets += 1

    def checkpoint(self) -> None:
        """Timers that a set clock held go on within a second or two; what they remove must be gone before it is compared."""
        time.sleep(TIMERS_GO_ON_SECONDS)
        super().checkpoint()

    def _send(self, at, wire, step) -> None:
        if self.traffic.rng.random() < 0.02:
            self._set()
        super()._send(at, wire, step)
