"""OpenTelemetry spans of look-ups: `llmcache.otel.instrument()` once, at the start of a process.

A span is named `llmcache.get_or_make`, `llmcache.search`, `llmcache.embed_many` and so on, with the attributes
`llmcache.cache`, `llmcache.result`, `llmcache.tier`, `llmcache.similarity`. Commands are spans of the client library's
own; tokens that were not spent are never told as `gen_ai.usage`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

try:
    from opentelemetry import trace
except ImportError as error:
    raise ImportError("opentelemetry-api is not installed: pip install 'llmcache-client[otel]'") from error

from ._observe import observers
from ._version import __version__


def instrument(tracer_provider: Any = None) -> None:
    """Makes a span of every look-up from now on; called again it changes the provider."""
    uninstrument()
    tracer = trace.get_tracer("llmcache", __version__, tracer_provider=tracer_provider)

    @contextlib.contextmanager
    def spans(method: str, name: str, told: dict[str, Any]) -> Iterator[None]:
        with tracer.start_as_current_span(f"llmcache.{method}", kind=trace.SpanKind.CLIENT) as span:
            span.set_attribute("llmcache.cache", name)
            try:
                yield
            finally:
                for key, value in told.items():
                    span.set_attribute(f"llmcache.{key}", value)

    spans.llmcache_otel = True  # type: ignore[attr-defined]
    observers.append(spans)


def uninstrument() -> None:
    """Makes no spans from now on."""
    observers[:] = [observer for observer in observers if not getattr(observer, "llmcache_otel", False)]
