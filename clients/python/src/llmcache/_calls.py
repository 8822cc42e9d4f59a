"""What a call of a decorated function asks the cache. Pure."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from .types import Answer, Context


class CallKey:
    """How the calls of one function become prompt, scope and context."""

    def __init__(
        self, function: Callable[..., Any], prompt: Callable[..., str] | None, scope: Callable[..., str] | None,
        context: str | Context,
    ):  # fmt: skip
        self.prompt, self.scope = prompt, scope
        self.signature = inspect.signature(function)
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.context = context

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        if self.scope is not None:
            asked["scope"] = self.scope(*args, **kwargs)
        if self.prompt is not None:
            return {**asked, "prompt": self.prompt(*args, **kwargs)}
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        members = dict(bound.arguments)
        if not members:
            raise TypeError(f"{self.name} is called without arguments, so `prompt` has to say what it is asked")
        name, prompt = next(iter(members.items()))
        if not isinstance(prompt, str):
            raise TypeError(f"the first argument of {self.name}, {name}, is no text, so `prompt` has to make one")
        del members[name]
        context = Context(function=self.name, arguments=members, context=str(self.context))
        return {**asked, "prompt": prompt, "context": context}


def dumped(value: Any, dumps: Callable[[Any], str]) -> str | Answer:
    """What a function returned as an answer to be stored."""
    if isinstance(value, Answer):
        return dataclasses.replace(value, text=value.text if isinstance(value.text, str | bytes) else dumps(value.text))
    return dumps(value)
