"""Who is told of a look-up while it runs: tracers, client-side metrics. Knows none of them.

An observer is called with the method's name, the container's name and a dict that the method fills (`result`,
`tier`, `similarity`), and returns a context manager that lasts as long as the method.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Observer = Callable[[str, str, dict[str, Any]], contextlib.AbstractContextManager[Any]]

observers: list[Observer] = []


@contextlib.contextmanager
def observed(method: str, name: str) -> Iterator[dict[str, Any]]:
    told: dict[str, Any] = {}
    if not observers:
        yield told
        return
    with contextlib.ExitStack() as stack:
        for observer in observers:
            stack.enter_context(observer(method, name, told))
        yield told
