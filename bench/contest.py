"""Contenders measured in interleaved rounds, and what their rounds come to.

A machine's speed drifts by more than what is to be seen, and other work on it stalls either side of
a connection at any moment. So a round lets the contenders run in turn for many short slices and takes
each one's best slice, the one that was disturbed least; ratios are taken within a round, the median
of the rounds is the figure, and the lowest and the highest stand beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from host import Host
from wire import Batch, Load, percentile


@dataclass
class Contender:
    """One way of doing the work: a server and what is sent to it."""

    name: str
    host: Host
    batches: Sequence[Batch]
    connections: int
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def rate(self) -> float:
        return statistics.median(self.rates)

    def cpu(self) -> float:
        return statistics.median(self.cpu_us)

    def p(self, share: float) -> float:
        return percentile(self.latencies, share)


@dataclass(frozen=True)
class Spread:
    """Lowest, median and highest of the rounds."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"

    def raw(self) -> list[float]:
        return [round(x, 3) for x in (self.low, self.median, self.high)]


def spread(values: Sequence[float]) -> Spread:
    return Spread(min(values), statistics.median(values), max(values))


SLICES = 8


def rates(contenders: Sequence[Contender], rounds: int, seconds: float) -> None:
    """Throughput and server CPU of each contender, `rounds` times, `seconds` a contender and round."""
    loads = [Load(c.host.port, c.connections) for c in contenders]
    for contender, load in zip(contenders, loads):
        load.run(contender.batches, seconds / SLICES)
    for _ in range(rounds):
        slices: list[list[tuple[float, float]]] = [[] for _ in contenders]
        for _ in range(SLICES):
            for contender, load, seen in zip(contenders, loads, slices):
                before = contender.host.cpu_seconds()
                commands, taken = load.run(contender.batches, seconds / SLICES)
                cpu = contender.host.cpu_seconds() - before
                seen.append((commands / taken, cpu / commands * 1e6))
        for contender, seen in zip(contenders, slices):
            contender.rates.append(max(rate for rate, _ in seen))
            contender.cpu_us.append(min(cpu for _, cpu in seen))
    for load in loads:
        load.close()


def latencies(contenders: Sequence[Contender], rounds: int, count: int) -> None:
    """Latency of single batches, one client, one at a time."""
    loads = [Load(c.host.port, 1) for c in contenders]
    for number in range(-1, rounds):
        for contender, load in zip(contenders, loads):
            taken = load.latencies(contender.batches, count if number >= 0 else count // 4)
            if number >= 0:
                contender.latencies += taken
    for load in loads:
        load.close()


def rate_ratio(ours: Contender, theirs: Contender) -> Spread:
    """Our throughput over theirs."""
    return spread([a / b for a, b in zip(ours.rates, theirs.rates)])


def cpu_ratio(ours: Contender, theirs: Contender) -> Spread:
    """Their server CPU a command over ours: above 1 where we need less."""
    return spread([b / a for a, b in zip(ours.cpu_us, theirs.cpu_us)])
