"""FILTER expressions written in Python: `(F.year >= 2025) & F.lang.in_(["en", "de"])`. Pure.

The language is that of docs/filter.md. `str()` of an expression is what the server reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
Scalar = str | int | float | bool | None


def literal(value: Any) -> str:
    """A value as the language writes it."""
    if isinstance(value, Term):
        return value.text
    if value is None or isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int | float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("a filter compares with finite numbers")
        # No exponent with a sign in front of digits is lost by repr, and integers stay whole.
        return repr(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return "[" + ", ".join(literal(item) for item in items) + "]"
    raise TypeError(f"a filter cannot hold {type(value).__name__}")


class Condition:
    """What is true or false of an entry; combine with `&`, `|` and `~`."""

    __slots__ = ("text",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str):
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<filter {self.text}>"

    def __and__(self, other: Condition) -> Condition:
        return Condition(f"({self.text}) and ({_condition(other)})")

    def __or__(self, other: Condition) -> Condition:
        return Condition(f"({self.text}) or ({_condition(other)})")

    def __invert__(self) -> Condition:
        return Condition(f"not ({self.text})")

    def __bool__(self) -> bool:
        raise TypeError(
            "combine filters with & and |, not with `and` and `or`; a filter alone is neither true nor false"
        )


def _condition(other: object) -> str:
    if not isinstance(other, Condition):
        raise TypeError(f"a filter cannot be combined with {type(other).__name__}")
    return other.text


class Term:
    """A member of META, or a sum of such; comparing it makes a condition."""

    __slots__ = ("text",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return f"<filter term {self.text}>"

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return Condition(f"{self.text} == {literal(other)}")

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return Condition(f"{self.text} != {literal(other)}")

    def __lt__(self, other: float | Term) -> Condition:
        return Condition(f"{self.text} < {literal(other)}")

    def __le__(self, other: float | Term) -> Condition:
        return Condition(f"{self.text} <= {literal(other)}")

    def __gt__(self, other: float | Term) -> Condition:
        return Condition(f"{self.text} > {literal(other)}")

    def __ge__(self, other: float | Term) -> Condition:
        return Condition(f"{self.text} >= {literal(other)}")

    def in_(self, values: Iterable[Scalar]) -> Condition:
        """Whether the member is one of these."""
        return Condition(f"{self.text} in {literal(list(values))}")

    def contains(self, value: Scalar) -> Condition:
        """Whether the member, a list, has this element; or, a text, this part."""
        return Condition(f"{literal(value)} in {self.text}")

    def true(self) -> Condition:
        """Whether the member is neither 0, "" nor null."""
        return Condition(self.text)

    def _joined(self, sign: str, other: float | Term, swapped: bool = False) -> Term:
        parts = (literal(other), self.text) if swapped else (self.text, literal(other))
        return Term(f"({parts[0]} {sign} {parts[1]})")

    def __add__(self, other: float | Term) -> Term:
        return self._joined("+", other)

    def __radd__(self, other: float) -> Term:
        return self._joined("+", other, swapped=True)

    def __sub__(self, other: float | Term) -> Term:
        return self._joined("-", other)

    def __rsub__(self, other: float) -> Term:
        return self._joined("-", other, swapped=True)

    def __mul__(self, other: float | Term) -> Term:
        return self._joined("*", other)

    def __rmul__(self, other: float) -> Term:
        return self._joined("*", other, swapped=True)

    def __truediv__(self, other: float | Term) -> Term:
        return self._joined("/", other)

    def __mod__(self, other: float | Term) -> Term:
        return self._joined("%", other)

    def __pow__(self, other: float | Term) -> Term:
        return self._joined("**", other)


class _Fields:
    """`F.year` and `F["n-4"]` are members of META."""

    def __getattr__(self, name: str) -> Term:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Term:
        if not _NAME.match(name):
            raise ValueError(f"{name!r} cannot be selected: names have letters, digits, _ and -")
        return Term(f".{name}")


F = _Fields()
"""`F.year >= 2025` is the condition that META's member `year` is at least 2025."""

Filter = str | Condition


def text(filter: Filter) -> str:
    """The expression as the server reads it."""
    if isinstance(filter, str | Condition):
        return str(filter)
    raise TypeError(f"a filter is text or a condition of F, not {type(filter).__name__}")
