"""The files of the client use one another in one direction."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "llmcache"


def imports(path: Path) -> set[Path]:
    """The files of the package that a file imports, at its top, within functions or for types alone."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parent
        for _ in range(node.level - 1):
            base = base.parent
        base = base.joinpath(*(node.module or "").split(".")) if node.module else base
        for name in node.names:
            for candidate in (
                base / f"{name.name}.py",
                base / name.name / "__init__.py",
                base.with_suffix(".py"),
                base / "__init__.py",
            ):
                if candidate.exists():
                    found.add(candidate)
                    break
    # What a package's own file names is what it hands on.
    return found - {path}


def circle_in(graph: dict[Path, set[Path]]) -> list[str]:
    done: set[Path] = set()

    def walk(at: Path, way: list[Path]) -> list[Path]:
        if at in way:
            return [*way[way.index(at) :], at]
        if at in done:
            return []
        for after in sorted(graph.get(at, ())):
            if circle := walk(after, [*way, at]):
                return circle
        done.add(at)
        return []

    for start in sorted(graph):
        if circle := walk(start, []):
            return [path.name for path in circle]
    return []


def test_no_file_uses_one_that_uses_it():
    graph = {path: imports(path) for path in PACKAGE.rglob("*.py")}
    assert len(graph) > 30
    assert graph[PACKAGE / "_sync.py"] >= {PACKAGE / "_flow.py", PACKAGE / "_streams.py"}
    assert circle_in(graph) == []


def test_a_circle_is_found():
    a, b, c = Path("a.py"), Path("b.py"), Path("c.py")
    assert circle_in({a: {b}, b: {c}, c: {b}}) == ["b.py", "c.py", "b.py"]
