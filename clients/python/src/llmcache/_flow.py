"""What a method does, written once for threads and for asyncio.

A method is a generator, a *flow*: it yields what is to be done (a command, a pause, a call of the user's
function) and gets the outcome back. `Blocking` and `Awaiting` carry flows out; `blocking` and `awaitable` turn a
flow into a method of one or the other, with the same signature. No flow touches a socket, a clock's sleep, a
thread or an event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from ._clients import AsyncConnection, Connection
from ._flights import Flight

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")

Argument = bytes | str | int | float


@dataclass(slots=True)
class Command:
    """One command; `waits` sends it over the connections kept for commands that the server lets wait."""

    args: Sequence[Argument]
    waits: bool = False


@dataclass(slots=True)
class Many:
    """Commands in one trip; the outcome is a list of replies, with the exception where one failed."""

    commands: Sequence[Sequence[Argument]]


@dataclass(slots=True)
class Sleep:
    seconds: float


@dataclass(slots=True)
class Call:
    """The user's function; under asyncio a coroutine function is awaited, another runs in a thread."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class While:
    """A call, and `beat` every so many seconds as long as it runs; a beat that returns False is the last."""

    call: Call
    beat: Callable[[], Flow[bool]]
    every: float


@dataclass(slots=True)
class Aside:
    """A flow that goes on by itself; its failure is told to `failed`."""

    flow: Callable[[], Flow[Any]]
    failed: Callable[[BaseException], None]


@dataclass(slots=True)
class Join:
    """Waits for whoever in this process does the same; the outcome is a `Flight`."""

    key: tuple[Any, ...]
    seconds: float


Effect = Command | Many | Sleep | Call | While | Aside | Join
Flow = Generator[Effect, Any, T]


class Blocking:
    """Carries flows out in the calling thread."""

    _connection: Connection

    def _run(self, flow: Flow[T]) -> T:
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = self._do(effect)
                except BaseException as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
        except StopIteration as end:
            return cast(T, end.value)

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Command(args, waits):
                return self._connection.execute(args, waits)
            case Many(commands):
                return self._connection.execute_many(commands)
            case Call(function, args, kwargs):
                return function(*args, **kwargs)
            case Sleep(seconds):
                time.sleep(seconds)
            case While():
                return self._while(effect)
            case Aside():
                self._aside(effect)
            case Join(key, seconds):
                return self._join(key, seconds)
        return None

    def _while(self, work: While) -> Any:
        ended = threading.Event()

        def beats() -> None:
            while not ended.wait(work.every):
                if not self._run(work.beat()):
                    return

        # The thread ends with the call; it is a daemon because the call may be killed by the interpreter's exit.
        thread = threading.Thread(target=beats, name="llmcache-lease", daemon=True)
        thread.start()
        try:
            return self._do(work.call)
        finally:
            ended.set()

    def _aside(self, aside: Aside) -> None:
        context = contextvars.copy_context()

        def work() -> None:
            try:
                context.run(self._run, aside.flow())
            except Exception as error:
                aside.failed(error)

        threading.Thread(target=work, name="llmcache-refresh", daemon=True).start()

    def _join(self, key: tuple[Any, ...], seconds: float) -> Flight:
        def make(flight: Flight) -> None:
            flight.done = threading.Event()

        flight, first = self._connection.flights.enter(("", *key), make)
        if first:
            return flight
        assert flight.done is not None
        flight.done.wait(max(0.0, seconds))
        return Flight.joined(flight.result)

    def _leave(self, key: tuple[Any, ...], result: Any) -> None:
        self._connection.flights.leave(("", *key), result)

    def close(self) -> None:
        """Closes what this package opened; never a client that was handed in."""
        self._connection.close()


class Awaiting:
    """Carries flows out in the running event loop."""

    _connection: AsyncConnection

    async def _run(self, flow: Flow[T]) -> T:
        try:
            effect = next(flow)
            while True:
                try:
                    outcome = await self._do(effect)
                except BaseException as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
        except StopIteration as end:
            return cast(T, end.value)

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Command(args, waits):
                return await self._connection.execute(args, waits)
            case Many(commands):
                return await self._connection.execute_many(commands)
            case Call(function, args, kwargs):
                return await called(function, *args, **kwargs)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case While():
                return await self._while(effect)
            case Aside():
                self._aside(effect)
            case Join(key, seconds):
                return await self._join(key, seconds)
        return None

    async def _while(self, work: While) -> Any:
        async def beats() -> None:
            while True:
                await asyncio.sleep(work.every)
                if not await self._run(work.beat()):
                    return

        beating = asyncio.create_task(beats(), name="llmcache-lease")
        try:
            return await self._do(work.call)
        finally:
            beating.cancel()

    def _aside(self, aside: Aside) -> None:
        async def work() -> None:
            try:
                await self._run(aside.flow())
            except Exception as error:
                aside.failed(error)

        task = asyncio.create_task(work(), name="llmcache-refresh")
        self._connection.tasks.add(task)
        task.add_done_callback(self._connection.tasks.discard)

    async def _join(self, key: tuple[Any, ...], seconds: float) -> Flight:
        loop = asyncio.get_running_loop()

        def make(flight: Flight) -> None:
            flight.future = loop.create_future()

        flight, first = self._connection.flights.enter((id(loop), *key), make)
        if first:
            return flight
        assert flight.future is not None
        done, _ = await asyncio.wait([flight.future], timeout=max(0.0, seconds))
        return Flight.joined(flight.result if done else None)

    def _leave(self, key: tuple[Any, ...], result: Any) -> None:
        self._connection.flights.leave((id(asyncio.get_running_loop()), *key), result)

    async def aclose(self) -> None:
        """Closes what this package opened; never a client that was handed in."""
        await self._connection.close()


async def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function's outcome: awaited where it can be, else from a thread, so that the loop is not held up."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return await function(*args, **kwargs)
    outcome = await asyncio.to_thread(function, *args, **kwargs)
    return await outcome if inspect.isawaitable(outcome) else outcome


def blocking(flow: Callable[Concatenate[S, P], Flow[T]]) -> Callable[Concatenate[Any, P], T]:
    """The flow as a method that returns its outcome."""

    @functools.wraps(flow)
    def method(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        return cast(Blocking, self)._run(flow(self, *args, **kwargs))

    method.flow = flow  # type: ignore[attr-defined]
    return cast(Any, method)  # type: ignore[no-any-return]


def awaitable(flow: Callable[Concatenate[S, P], Flow[T]]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The flow as a method to be awaited."""

    @functools.wraps(flow)
    async def method(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        return await cast(Awaiting, self)._run(flow(self, *args, **kwargs))

    method.flow = flow  # type: ignore[attr-defined]
    return cast(Any, method)  # type: ignore[no-any-return]


class Later(Generic[T]):
    """What a method called in a pipeline will have returned after it."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def value(self) -> T:
        if self._error is not None:
            raise self._error
        return cast(T, self._value)


class _Pipeline:
    def __init__(self) -> None:
        self._flows: list[tuple[Flow[Any], Later[Any]]] = []

    def _add(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Later[Any]:
        flow = method.flow(method.__self__, *args, **kwargs)  # type: ignore[attr-defined]
        later: Later[Any] = Later()
        self._flows.append((flow, later))
        return later

    def _together(self) -> Flow[None]:
        """All flows side by side: the commands that they wait for go in one trip."""
        waiting: list[tuple[Flow[Any], Later[Any], Effect]] = []

        def step(flow: Flow[Any], later: Later[Any], move: Callable[[], Effect]) -> None:
            try:
                waiting.append((flow, later, move()))
            except StopIteration as end:
                later._value = end.value
            except Exception as error:
                later._error = error

        for flow, later in self._flows:
            step(flow, later, functools.partial(next, flow))
        self._flows = []
        while waiting:
            now, waiting = waiting, []
            commands = [(f, w, e) for f, w, e in now if isinstance(e, Command | Many)]
            sizes = [1 if isinstance(e, Command) else len(e.commands) for _, _, e in commands]
            args = [a for _, _, e in commands for a in ([e.args] if isinstance(e, Command) else e.commands)]
            replies = (yield Many(args)) if args else []
            at = 0
            for (flow, later, effect), size in zip(commands, sizes, strict=True):
                part = replies[at : at + size]
                at += size
                if isinstance(effect, Many):
                    step(flow, later, functools.partial(flow.send, part))
                elif isinstance(part[0], Exception):
                    step(flow, later, functools.partial(flow.throw, part[0]))
                else:
                    step(flow, later, functools.partial(flow.send, part[0]))
            for flow, later, other in now:
                if not isinstance(other, Command | Many):
                    try:
                        outcome = yield other
                    except Exception as error:
                        step(flow, later, functools.partial(flow.throw, error))
                    else:
                        step(flow, later, functools.partial(flow.send, outcome))


class Pipeline(_Pipeline, Blocking):
    """Several methods in one trip: `with Pipeline(client) as p: a = p(cache.get, "x")`; then `a.value`."""

    def __init__(self, client: Any):
        super().__init__()
        self._connection = Connection.of(client)

    def __call__(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Later[T]:
        return self._add(method, args, kwargs)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self._run(self._together())


class AsyncPipeline(_Pipeline, Awaiting):
    """Several methods in one trip: `async with AsyncPipeline(client) as p: a = p(cache.get, "x")`; then `a.value`."""

    def __init__(self, client: Any):
        super().__init__()
        self._connection = AsyncConnection.of(client)

    def __call__(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> Later[T]:
        return self._add(method, args, kwargs)

    async def __aenter__(self) -> AsyncPipeline:
        return self

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            await self._run(self._together())
