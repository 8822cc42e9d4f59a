"""The benchmark page and its figures: written whole, or with some sections measured anew.

Owns: the form of `README.md` and `figures.json`. A page that is there is only read for the sections and
verdicts that were not measured this time.
"""

from __future__ import annotations

import json
from pathlib import Path

from report import Report, Table

INTRO = """# Benchmarks

Written by `make bench`; the raw figures are in `figures.json`. What is compared was measured in one run on one
machine, in interleaved rounds: read the ratios, not the times. Counts and answers are asserted while measuring.
A section keeps its figures until it is measured again, with `make bench ONLY=…` or all of it."""
TARGETS = "Targets"
# Where `figures.json` keeps the verdicts of each section.
VERDICTS = "targets"


def targets(reports: dict[str, Report]) -> Table:
    table = Table(["target", "wanted", "measured", ""])
    for rows in verdicts(reports).values():
        for row in rows:
            table.add(*row)
    return table


def verdicts(reports: dict[str, Report]) -> dict[str, list[list[str]]]:
    return {
        name: [[t.what, t.wanted, t.got, "met" if t.met else "**missed**"] for t in report.targets]
        for name, report in reports.items()
    }


def write(out: Path, reports: dict[str, Report], about: str, whole: bool) -> None:
    """Writes all there is; where not everything was measured, the rest of the page stays as it was."""
    out.mkdir(parents=True, exist_ok=True)
    sections = {report.title: report.markdown() for report in reports.values()}
    figures: dict = {name: report.figures for name, report in reports.items()}
    judged = verdicts(reports)
    rows = [row for part in judged.values() for row in part]
    page, remarks = out / "README.md", []
    if not whole and page.exists():
        former = json.loads((out / "figures.json").read_text())
        before, remarks, head, kept = parsed(page.read_text())
        if head != about:
            sections = {title: f"{text}\n\nMeasured apart from the rest. {about}" for title, text in sections.items()}
        new = {row[0] for row in rows}
        new |= {row[0] for name in reports for row in former.get(VERDICTS, {}).get(name, [])}
        rows = [row for row in before if row[0] not in new] + rows
        sections, about = {**kept, **sections}, head
        judged = {**former.pop(VERDICTS, {}), **judged}
        figures = {**former, **figures}
    table = Table(["target", "wanted", "measured", ""], rows)
    page.write_text("\n\n".join([INTRO, *remarks, about, f"## {TARGETS}", table.markdown(), *sections.values()]) + "\n")
    (out / "figures.json").write_text(json.dumps({**figures, VERDICTS: judged}, indent=1) + "\n")
    for name, drawing in (plot for report in reports.values() for plot in report.plots.items()):
        (out / name).write_text(drawing)


def parsed(page: str) -> tuple[list[list[str]], list[str], str, dict[str, str]]:
    """The rows of the targets, remarks written by hand below the introduction, the line about machine and servers, the
    sections by their titles."""
    head, *parts = page.rstrip("\n").split("\n## ")
    sections = {part.split("\n", 1)[0]: f"## {part}".rstrip("\n") for part in parts}
    lines = sections.pop(TARGETS).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    *paragraphs, about = head.strip().split("\n\n")
    return rows[2:], paragraphs[INTRO.count("\n\n") + 1 :], about, sections
