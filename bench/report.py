"""What a benchmark hands back: tables for people, figures for programs, verdicts on targets."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Table:
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append([str(cell) for cell in cells])

    def markdown(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


@dataclass
class Target:
    """A figure that was set as a goal; times are reported and never fail the run."""

    what: str
    wanted: str
    got: str
    met: bool


@dataclass
class Report:
    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    # Drawings by the name of their file, beside the page.
    plots: dict[str, str] = field(default_factory=dict)

    def add_target(self, what: str, wanted: str, got: str, met: bool) -> None:
        self.targets.append(Target(what, wanted, got, met))

    def table(self, *head: str) -> Table:
        self.tables.append(Table(list(head)))
        return self.tables[-1]

    def joined(self, other: Report) -> Report:
        """This one with another below it, as one section."""
        text = "\n\n".join([self.text, *(table.markdown() for table in self.tables), f"### {other.title}", other.text])
        figures = {**self.figures, **other.figures}
        return Report(self.title, text, other.tables, self.targets + other.targets, figures, self.plots | other.plots)

    def markdown(self) -> str:
        return "\n\n".join([f"## {self.title}", self.text, *(t.markdown() for t in self.tables), *self._images()])

    def _images(self) -> list[str]:
        return [f"![{self.title}]({name})" for name in self.plots]


def number(value: float) -> str:
    """With thousands separated, and no more digits than mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def check(truth: bool, what: str) -> None:
    """Counts and answers are asserted: a benchmark of wrong answers is worth nothing."""
    if not truth:
        raise SystemExit(f"bench: {what}")
