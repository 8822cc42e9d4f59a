"""The table of faults names tests that exist: a fault whose test is renamed or removed is noticed."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
SECTIONS = {"1": 3, "2": 8, "3": 8, "4": 12}


def rows() -> list[list[str]]:
    lines = (TESTS / "FAULTS.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def exists(named: str) -> bool:
    file, _, name = named.partition("::")
    path = ROOT / file if file.startswith("core/") else TESTS / file
    word = "fn" if path.suffix == ".rs" else "def"
    return path.exists() and re.search(rf"^{word} {re.escape(name)}\(", path.read_text(), re.MULTILINE) is not None


def test_each_fault_is_shown_by_tests_that_exist():
    gone = []
    for number, fault, shown in rows():
        named = [name.strip() for name in shown.split(",")]
        assert named and fault.endswith("."), (number, fault)
        gone += [(number, name) for name in named if not exists(name)]
    assert not gone, "tests that the table of faults names are gone"


def test_no_fault_is_left_out():
    numbers = [number for number, _, _ in rows()]
    for section, count in SECTIONS.items():
        assert [n for n in numbers if n.startswith(f"{section}.")] == [f"{section}.{n}" for n in range(1, count + 1)]
    assert numbers.count("5") >= 10 and numbers[-2:] == ["5.1", "5.2"]


def test_a_name_that_is_none_is_noticed():
    assert not exists("test_faults.py::test_that_never_was")
    assert not exists("test_nothing.py::test_no_fault_is_left_out")
    assert exists("test_faults.py::test_no_fault_is_left_out")
