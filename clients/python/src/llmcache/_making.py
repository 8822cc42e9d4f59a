"""Making an answer once for all who ask: the lease, the wait, the store, and going on without the cache, as flows.

Owns: what happens between a miss and an answer. Knows no socket, thread or loop.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _judging, filters
from . import _replies as r
from ._cache import CacheFlows, Text, log, tell
from ._flow import Aside, Call, Flow, Join, While
from ._observe import observed
from .errors import BreakerOpen, LeaseLost, MakingFailed, ServerError, is_outage
from .types import Answer, Context, Fetched, Hit, Judged
from .vectors import Vector

# A lease is renewed when this part of it has passed, so that one lost beat does not lose it.
_BEAT = 1 / 3


def get_or_make(
    self: CacheFlows,
    prompt: Text,
    make: Callable[[], Any],
    *,
    vector: Vector | None = None,
    ttl: float | None = None,
    tags: Sequence[str] = (),
    meta: Mapping[str, Any] | None = None,
    wait: float | None = None,
    lease: float | None = None,
    beta: float | None = None,
    threshold: float | None = None,
    filter: filters.Filter | None = None,
    max_age: float | None = None,
    guard: str | None = None,
    scope: str | None = None,
    context: str | Context | None = None,
    refresh_aside: bool = False,
) -> Flow[str]:
    """The answer from the cache, or the one that `make()` makes; of all who ask at once, one makes it.

    `make` returns text or an `Answer`. While it runs its lease is prolonged; when it raises, those who wait are
    told and the exception goes on. Where somebody else's answer does not come within `wait` seconds, or the
    server is away or refuses, `make` is called all the same (`fail_open=False` raises instead). With
    `refresh_aside` a stale answer is returned at once while a new one is made.
    """
    in_scope, in_context = self._scoped(scope, context)
    maker = _Maker(
        self, prompt, make, in_scope, in_context, vector,
        ttl=ttl, tags=tags, meta=meta, lease=self.lease if lease is None else lease,
        asked={"beta": beta, "threshold": threshold, "filter": filter, "max_age": max_age, "guard": guard},
        aside=refresh_aside,
    )  # fmt: skip
    seconds = self.wait if wait is None else wait
    end = time.monotonic() + seconds
    asked = filters.text(filter) if filter is not None else None
    key = (self.name, r.raw(prompt), in_scope, in_context, threshold, asked, max_age, guard)
    with observed("get_or_make", self.name) as told:
        while True:
            flight = yield Join(key, end - time.monotonic())
            if flight.first:
                break
            if flight.result is not None:
                told["result"] = "joined"
                return str(flight.result)
            if time.monotonic() >= end:
                told["result"] = "late"
                return (yield from maker.unleased())
        answer: str | None = None
        try:
            answer = yield from maker.run(end, told)
            return answer
        finally:
            self._leave(key, answer)


class _Maker:
    """One run of `get_or_make`: asks, makes, stores, gives up."""

    def __init__(
        self, cache: CacheFlows, prompt: Text, make: Callable[[], Any], scope: str, context: str,
        vector: Vector | None, *, ttl: float | None, tags: Sequence[str], meta: Mapping[str, Any] | None,
        lease: float, asked: Mapping[str, Any], aside: bool,
    ):  # fmt: skip
        self.cache, self.prompt, self.make = cache, prompt, make
        self.where: dict[str, Any] = {"scope": scope, "context": context}
        self.vector, self.ttl, self.tags, self.meta = vector, ttl, tags, meta
        self.lease, self.asked, self.aside = lease, asked, aside

    def run(self, end: float, told: dict[str, Any]) -> Flow[str]:
        cache = self.cache
        if cache.fail_open and cache._connection.resting:
            told["result"] = "open"
            return (yield from self.unleased())
        try:
            fetched = yield from self.ask(end)
        except Exception as error:
            if not (cache.fail_open and is_outage(error)):
                raise
            if not isinstance(error, ServerError):
                cache._connection.rest()
            log.warning("llmcache %s: the cache is passed over: %s", cache.name, error)
            told["result"] = "open"
            return (yield from self.unleased())
        status, hit = fetched.status, fetched.hit
        tell(told, status.lower(), hit)
        if status in ("HIT", "STALE"):
            assert hit is not None
            if hit.audit is not None:
                yield Aside(functools.partial(self.audit, hit.audit, hit), self.unaudited)
            return hit.response
        if status in ("LEAD", "LEAD-STALE"):
            assert fetched.token is not None
            if hit is not None and self.aside:
                yield Aside(
                    functools.partial(self.lead, fetched.token, hit.audit, hit),
                    lambda error: log.warning("llmcache %s: a stale answer was not renewed: %s", cache.name, error),
                )
                return hit.response
            about = hit or fetched.candidate
            ticket = fetched.audit or (hit.audit if hit else None)
            return (yield from self.lead(fetched.token, ticket, about))
        if status == "NEG":
            raise MakingFailed(fetched.error or "", fetched.retry or 0.0)
        if status == "OPEN":
            raise BreakerOpen(fetched.retry or 0.0)
        log.warning("llmcache %s: an answer that somebody else makes did not come in time", cache.name)
        return (yield from self.unleased())

    def ask(self, end: float) -> Flow[Fetched]:
        """The exact answer first where a vector would have to be made: a trip costs a thousandth of that."""
        cache = self.cache
        if self.vector is None and cache.embed is not None:
            if self.asked["filter"] is None and self.asked["max_age"] is None:
                found = yield from CacheFlows.get(cache, self.prompt, **self.where)
                if found is not None:
                    hit = Hit("", "exact", 1.0, r.text(r.raw(self.prompt)), r.raw(found), 0.0, None, False, None, [], 0)
                    return Fetched("HIT", hit=hit)
            self.vector = yield Call(cache.embed, (r.text(r.raw(self.prompt)),))
        return (
            yield from CacheFlows.fetch(
                cache, self.prompt, vector=self.vector, wait=max(0.0, end - time.monotonic()), lease=self.lease,
                audit=cache.audit, **self.asked, **self.where,
            )
        )  # fmt: skip

    def unleased(self) -> Flow[str]:
        made = yield Call(self.make)
        return r.text(r.raw(_answer(made).text))

    def audit(self, ticket: bytes, about: Hit) -> Flow[None]:
        """Makes the answer again behind the back of whoever was served, and reports on what was served."""
        made = _answer((yield Call(self.make)))
        yield from self.told_apart(ticket, about, made)

    def told_apart(self, ticket: bytes, about: Hit, made: Answer) -> Flow[None]:
        cache = self.cache
        asked, answer = r.text(r.raw(self.prompt)), r.text(r.raw(made.text))
        right = yield from _judging.judged(cache, Judged(asked, answer, about.prompt, about.response))
        yield from _judging.feedback(cache, ticket, right, prompt=self.prompt, **self.where)

    def unaudited(self, error: BaseException) -> None:
        log.warning("llmcache %s: an answer was not audited: %s", self.cache.name, error)

    def lead(self, token: bytes, ticket: bytes | None = None, about: Hit | None = None) -> Flow[str]:
        cache, start = self.cache, time.monotonic()

        def beat() -> Flow[bool]:
            try:
                yield from CacheFlows.extend(cache, self.prompt, token, self.lease, **self.where)
            except LeaseLost:
                return False
            except Exception as error:
                if not is_outage(error):
                    raise
            return True

        try:
            made = _answer((yield While(Call(self.make), beat, self.lease * _BEAT)))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            yield from self.give_up(CacheFlows.fail(cache, self.prompt, token, text, **self.where))
            raise
        except BaseException:
            # Cancelled or interrupted, which says nothing of the question: the next who waits may make the answer.
            yield from self.give_up(CacheFlows.extend(cache, self.prompt, token, 0.001, **self.where))
            raise
        if made.store:
            yield from self.store(made, token, time.monotonic() - start)
        else:
            yield from self.give_up(CacheFlows.extend(cache, self.prompt, token, 0.001, **self.where))
        if ticket is not None and about is not None:
            # The answer is not kept waiting for a judge.
            yield Aside(functools.partial(self.told_apart, ticket, about, made), self.unaudited)
        return r.text(r.raw(made.text))

    def give_up(self, flow: Flow[None]) -> Flow[None]:
        try:
            yield from flow
        except Exception as error:
            # The lease lapses by itself; what the caller has to hear is its own error.
            log.debug("llmcache %s: a lease could not be given up: %s", self.cache.name, error)

    def store(self, made: Answer, token: bytes, latency: float) -> Flow[None]:
        cache = self.cache
        try:
            args: dict[str, Any] = {
                "ttl": self.ttl if made.ttl is None else made.ttl, "tags": [*self.tags, *made.tags],
                "meta": {**(self.meta or {}), **(made.meta or {})} or None, "tokens": made.tokens, "cost": made.cost,
            }  # fmt: skip
            yield from CacheFlows.set(
                cache, self.prompt, made.text, vector=self.vector, lease=token, latency=latency, **args, **self.where
            )
        except LeaseLost as lost:
            log.info("llmcache %s: an answer came too late to be stored: %s", cache.name, lost)
        except Exception as error:
            if not (cache.fail_open and is_outage(error)):
                raise
            log.warning("llmcache %s: an answer was not stored: %s", cache.name, error)


def _answer(made: Any) -> Answer:
    if isinstance(made, Answer):
        return made
    if isinstance(made, str | bytes):
        return Answer(made)
    raise TypeError(f"a maker returns text or an Answer, not {type(made).__name__}")
