"""The console as an ASGI application: addresses, and what each answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from importlib import resources
from typing import Any

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route
except ImportError as error:
    raise ImportError("the console needs starlette and uvicorn: pip install 'llmcache-client[console]'") from error

from .._version import __version__
from . import answers, chunks, documents, sessions
from .sampler import Sampler
from .security import App, Guard
from .store import Refused, Store

ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        (
            "main.js",
            "dom.js",
            "charts.js",
            "live.js",
            "overview.js",
            "cache.js",
            "attempt.js",
            "documents.js",
            "sessions.js",
            "chunks.js",
        ),
        "text/javascript; charset=utf-8",
    ),
}
STREAMS_MAX = 32
"""Streams of events at once; each costs a task, and a followed message a connection."""
FOLLOWED_MAX = 6

Answer = Callable[[Request], Awaitable[Any]]


def _events(source: AsyncIterator[dict[str, Any]], ending: Callable[[], bool]) -> AsyncIterator[str]:
    async def told() -> AsyncIterator[str]:
        yield "retry: 3000\n\n"
        try:
            async for one in source:
                yield f"data: {json.dumps(one)}\n\n"
                if ending():
                    return
        except Refused as refused:
            yield f"data: {json.dumps({'problem': str(refused)})}\n\n"

    return told()


class Console:
    """What one console serves."""

    def __init__(self, store: Store, ending: Callable[[], bool]):
        self._ending = ending
        self.store, self.sampler, self.dismissed = store, Sampler(store), answers.Dismissed()
        self._streams = self._followed = 0

    # Pages.

    async def session(self, _: Request) -> Any:
        sample = await self.sampler.latest()
        return {
            "version": __version__,
            "write": self.store.allow_write,
            "db": self.store.db,
            "server": sample["server"],
            "module": sample["module"],
        }

    async def overview(self, _: Request) -> Any:
        return {"now": await self.sampler.latest(), "history": self.sampler.history()}

    async def cache(self, request: Request) -> Any:
        return await answers.cache(self.store, _name(request))

    async def near_misses(self, request: Request) -> Any:
        return await answers.near_misses(self.store, _name(request), self.dismissed)

    async def entries(self, request: Request) -> Any:
        return await answers.entries(self.store, _name(request), _cursor(request))

    async def entry(self, request: Request) -> Any:
        return await answers.entry(self.store, _name(request), request.query_params.get("id", ""))

    async def judge(self, request: Request) -> Any:
        return await answers.judge(self.store, _name(request), await _body(request), self.dismissed)

    async def attempt(self, request: Request) -> Any:
        return await answers.attempt(self.store, _name(request), await _body(request))

    async def index(self, request: Request) -> Any:
        return await documents.index(self.store, _name(request))

    async def search(self, request: Request) -> Any:
        return await documents.search(self.store, _name(request), await _body(request))

    async def sessions(self, request: Request) -> Any:
        owner = request.query_params.get("owner")
        return await (sessions.of_owner(self.store, owner) if owner else sessions.found(self.store, _cursor(request)))

    async def window(self, request: Request) -> Any:
        return await sessions.window(self.store, _name(request), dict(request.query_params))

    async def namespace(self, request: Request) -> Any:
        return await chunks.namespace(self.store, _name(request), _cursor(request))

    # Streams.

    async def events(self, _: Request) -> Response:
        return self._stream(self.sampler.watch())

    async def follow(self, request: Request) -> Response:
        if self._followed >= FOLLOWED_MAX:
            raise Refused("too many messages are being followed", 503)
        seq = request.query_params.get("seq", "")
        if not seq.isdigit():
            raise Refused("seq is a whole number")
        self._followed += 1

        async def following() -> AsyncIterator[dict[str, Any]]:
            try:
                async for one in sessions.follow(self.store, _name(request), int(seq)):
                    yield one
            finally:
                self._followed -= 1

        return self._stream(following())

    def _stream(self, source: AsyncIterator[dict[str, Any]]) -> Response:
        if self._streams >= STREAMS_MAX:
            raise Refused("too many pages are open", 503)
        self._streams += 1

        async def counted() -> AsyncIterator[str]:
            try:
                async for one in _events(source, self._ending):
                    yield one
            finally:
                self._streams -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")


def _name(request: Request) -> str:
    name = request.query_params.get("name", "")
    if not name:
        raise Refused("name is missing")
    return name


def _cursor(request: Request) -> int:
    given = request.query_params.get("cursor", "0")
    if not given.isdigit() or len(given) > 20:
        raise Refused("cursor is a whole number")
    return int(given)


async def _body(request: Request) -> dict[str, Any]:
    try:
        given = json.loads(await request.body())
    except ValueError as error:
        raise Refused(f"that is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise Refused("a JSON object is expected")
    return given


def _json(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            told = await answer(request)
        except Refused as refused:
            return JSONResponse({"problem": str(refused)}, refused.status)
        return told if isinstance(told, Response) else JSONResponse(told)

    return answered


def _asset(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = resources.files(__package__).joinpath("assets", name).read_bytes()

    async def answered(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answered


def application(
    store: Store,
    names: Iterable[str] = (),
    token: str | None = None,
    ending: Callable[[], bool] = lambda: False,
) -> App:
    """The application: guarded, its sampler at work while it runs. Streams end once `ending` says so."""
    console = Console(store, ending)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        sampling = asyncio.create_task(console.sampler.run())
        try:
            yield
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
            await store.close()

    gets = {
        "session": console.session, "overview": console.overview, "cache": console.cache, "near-misses":
        console.near_misses, "entries": console.entries, "entry": console.entry, "index": console.index, "sessions":
        console.sessions, "window": console.window, "namespace": console.namespace, "events": console.events,
        "follow": console.follow,
    }  # fmt: skip
    posts = {"judge": console.judge, "attempt": console.attempt, "search": console.search}
    routes = [Route(f"/api/{path}", _json(answer), methods=["GET"]) for path, answer in gets.items()]
    routes += [Route(f"/api/{path}", _json(answer), methods=["POST"]) for path, answer in posts.items()]
    routes += [Route(f"/{'' if name == 'index.html' else name}", _asset(name, kind)) for name, kind in ASSETS.items()]
    return Guard(Starlette(routes=routes, lifespan=lifespan), names, token)
