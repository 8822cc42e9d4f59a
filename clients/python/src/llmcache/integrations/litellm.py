"""LiteLLM: a cache in which of concurrent identical calls one asks the model and the others wait.

    litellm.cache = litellm.Cache(...); litellm.cache.cache = LlmcacheLiteLLM(client)

LiteLLM looks up and stores by two calls. A miss takes the lease to make the answer, which the store pays in; where
the call to the model fails, `failure` gives it up (add `cache.failure` to `litellm.failure_callback`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from ._both import Both, needs

try:
    from litellm.caching.base_cache import BaseCache
except ImportError as error:
    raise needs("litellm", "litellm") from error

import llmcache.asyncio as aio

from .._cache import log
from .._sync import LLMCache
from ..errors import LeaseLost, LlmcacheError, is_outage
from ..types import Context, Fetched

_ANSWER_DEPENDS_ON = (
    "model", "temperature", "top_p", "max_tokens", "max_completion_tokens", "tools", "tool_choice", "response_format",
    "seed", "stop", "n", "logit_bias", "presence_penalty", "frequency_penalty", "reasoning_effort", "user",
)  # fmt: skip


class LlmcacheLiteLLM(BaseCache):
    """Exact by LiteLLM's own key; with `embed` also by meaning: by the last text of the user, in the context of all
    else that was asked with it."""

    def __init__(
        self,
        client: Any,
        name: str = "litellm",
        *,
        embed: Callable[[str], Any] | None = None,
        threshold: float | None = None,
        default_ttl: int = 600,
        lease: float = 60.0,
        wait: float = 60.0,
        scope: str = "",
    ):
        super().__init__(default_ttl=default_ttl)
        self.name, self._embed, self._wait, self._lease = name, embed, wait, lease
        options: dict[str, Any] = {"threshold": threshold, "scope": scope, "lease": lease}
        self.both = Both(client, lambda c: LLMCache(c, name, **options), lambda c: aio.LLMCache(c, name, **options))
        self._held: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def _asked(self, key: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        messages = kwargs.get("messages")
        if self._embed is None or not isinstance(messages, list) or not messages:
            return {"prompt": key}
        last = messages[-1]
        if last.get("role") != "user" or not isinstance(last.get("content"), str):
            return {"prompt": key}
        others = {
            name: kwargs[name]
            for name in _ANSWER_DEPENDS_ON
            if kwargs.get(name) is not None
        }  # fmt: skip
        context = Context(**json.loads(json.dumps(others, default=str)), earlier=messages[:-1])
        return {"prompt": last["content"], "context": context}

    def _seen(self, key: str, fetched: Fetched, kwargs: dict[str, Any]) -> Any:
        if fetched.token is not None:
            with self._lock:
                now = time.monotonic()
                # Whoever never stored (a stream that was left) must not be remembered for ever.
                self._held = {k: v for k, v in self._held.items() if v[1] > now}
                self._held[key] = (fetched.token, now + self._lease)
        if fetched.hit is None or fetched.status == "LEAD-STALE":
            return None
        metadata = kwargs.get("metadata")
        if isinstance(metadata, dict):
            metadata["semantic-similarity"] = fetched.hit.similarity
        return json.loads(fetched.hit.response)

    def _token(self, key: str) -> bytes | None:
        with self._lock:
            held = self._held.pop(key, None)
        return held[0] if held else None

    def _stored(self, value: Any, kwargs: dict[str, Any]) -> tuple[str, float | None]:
        ttl = self.get_ttl(**kwargs)
        return json.dumps(value, default=str), None if ttl is None else float(ttl)

    def get_cache(self, key: str, **kwargs: Any) -> Any:
        asked = self._asked(key, kwargs)
        vector = self._embed(asked["prompt"]) if self._embed and "context" in asked else None
        return self._seen(key, self.both.sync.fetch(**asked, vector=vector, wait=self._wait), kwargs)

    async def async_get_cache(self, key: str, **kwargs: Any) -> Any:
        from .._flow import called

        asked = self._asked(key, kwargs)
        vector = await called(self._embed, asked["prompt"]) if self._embed and "context" in asked else None
        return self._seen(key, await self.both.aio.fetch(**asked, vector=vector, wait=self._wait), kwargs)

    def set_cache(self, key: str, value: Any, **kwargs: Any) -> None:
        asked, (body, ttl) = self._asked(key, kwargs), self._stored(value, kwargs)
        vector = self._embed(asked["prompt"]) if self._embed and "context" in asked else None
        try:
            self.both.sync.set(response=body, vector=vector, ttl=ttl, lease=self._token(key), **asked)
        except LeaseLost as lost:
            log.info("llmcache %s: an answer came too late to be stored: %s", self.name, lost)

    async def async_set_cache(self, key: str, value: Any, **kwargs: Any) -> None:
        from .._flow import called

        asked, (body, ttl) = self._asked(key, kwargs), self._stored(value, kwargs)
        vector = await called(self._embed, asked["prompt"]) if self._embed and "context" in asked else None
        try:
            await self.both.aio.set(response=body, vector=vector, ttl=ttl, lease=self._token(key), **asked)
        except LeaseLost as lost:
            log.info("llmcache %s: an answer came too late to be stored: %s", self.name, lost)

    async def async_set_cache_pipeline(self, cache_list: list[tuple[str, Any]], **kwargs: Any) -> None:
        async with aio.Pipeline(self.both.aio._connection.client) as pipe:
            later = []
            for key, value in cache_list:
                body, ttl = self._stored(value, kwargs)
                later.append(pipe(self.both.aio.set, key, body, ttl=ttl))
        for one in later:
            _ = one.value

    async def batch_cache_write(self, key: str, value: Any, **kwargs: Any) -> None:
        await self.async_set_cache(key, value, **kwargs)

    def failure(self, kwargs: dict[str, Any], response: Any, start: Any, end: Any) -> None:
        """A failure callback of LiteLLM: who waits for the answer that failed is told at once."""
        parameters = kwargs.get("litellm_params") or {}
        key = parameters.get("preset_cache_key") or kwargs.get("cache_key")
        token = self._token(str(key)) if key else None
        if token is None:
            return
        try:
            self.both.sync.fail(self._asked(str(key), kwargs)["prompt"], token, str(kwargs.get("exception", ""))[:500])
        except Exception as error:
            if not (isinstance(error, LlmcacheError) or is_outage(error)):
                raise
            log.info("llmcache %s: a lease could not be given up: %s", self.name, error)

    async def test_connection(self) -> dict[str, Any]:
        try:
            await self.both.aio.get("a question that nobody asks")
        except Exception as error:
            return {"status": "failed", "message": "the server does not answer", "error": str(error)}
        return {"status": "success", "message": "the server answers"}

    async def disconnect(self) -> None:
        self.both.close()
