"""Whether a stored answer is right for another question: what a cache with MAXERROR learns its threshold from.

Owns: the judges that need nothing from the user, and the report. The server hands out a ticket with some look-ups; the
answer is made in any case on a miss, so holding the candidate against it costs no call of a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._flow import Call, Command, Flow
from .errors import BadTicket
from .types import Judge, Judged

if TYPE_CHECKING:
    from ._cache import CacheFlows, Text

# Answers whose embeddings are this near say the same. Two that say the opposite in like words can be nearer than is
# good: where that happens a judge of the user's own is needed.
SAME_ANSWER = 0.95


def judged(self: CacheFlows, case: Judged) -> Flow[bool]:
    """Whether the candidate's answer will do: equal bytes, then what the user's judge says, or embeddings of both."""
    if case.candidate == case.made:
        return True
    judge: Judge | None = self.judge
    if judge is not None:
        return bool((yield Call(judge, (case,))))
    if self.embed is None:
        return False
    one = yield Call(self.embed, (case.candidate,))
    other = yield Call(self.embed, (case.made,))
    return cosine(_numbers(one), _numbers(other)) >= SAME_ANSWER


def report(self: CacheFlows, name: str, ticket: bytes, right: bool) -> Flow[bool]:
    """Tells the server; whether it counted. A ticket of a cache that is there no more counts nothing."""
    try:
        return bool((yield Command(("LLMCACHE.FEEDBACK", name, "TICKET", ticket, "RIGHT" if right else "WRONG"))))
    except BadTicket:
        return False


def feedback(
    self: CacheFlows, ticket: bytes, right: bool, *, prompt: Text = "", scope: str | None = None, context: Any = None
) -> Flow[bool]:
    """Reports whether the answer of a `Hit` or `Fetched` with a ticket (`audit`) was right. False if it counts nothing.

    A cache in several shards needs the prompt that was asked, and its scope and context.
    """
    return (yield from report(self, self._home(prompt, scope, context), ticket, right))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norms = math.sqrt(math.fsum(x * x for x in one) * math.fsum(x * x for x in other))
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / norms if norms else 0.0


def _numbers(vector: Any) -> list[float]:
    return [float(x) for x in vector]
