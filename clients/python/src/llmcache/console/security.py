"""Who may ask the console for what: the Host header, the token, the origin of writes, and what pages may load.

A page that an attacker's name resolves to this machine (DNS rebinding) sends that name as Host and is refused; so is a
form of another site, since writes need JSON and a header that no form sends.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "llmcache_console"
WRITE_HEADER = b"x-llmcache-console"
BODY_MAX_BYTES = 1 << 20
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


class Guard:
    """Lets through what may pass, and writes the headers of every answer."""

    def __init__(self, app: App, names: Iterable[str] = (), token: str | None = None):
        self._app, self._token = app, token
        self._names = {"localhost", *(name.lower() for name in names)}

    def _is_own_host(self, host: str) -> bool:
        name = name_of(host)
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # an address cannot be rebound

    def _is_known(self, headers: dict[bytes, bytes]) -> bool:
        if self._token is None:
            return True
        given = headers.get(b"authorization", b"").decode("latin-1")
        if given.startswith("Bearer ") and self._is_token(given.removeprefix("Bearer ")):
            return True
        try:
            jar = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return False
        return COOKIE in jar and self._is_token(jar[COOKIE].value)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # The server's start and end; there are no web sockets.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_own_host(host):
            await refuse(send, 421, "this console does not answer to that name; start it with --allow-host")
            return
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and "token" in asked and self._is_token(asked["token"][0]):
            # From the address bar into a cookie that no script reads.
            cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            await refuse(send, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode())])
            return
        if not self._is_known(headers):
            await refuse(send, 401, "open the address with the token that the console printed")
            return
        if scope["method"] not in ("GET", "HEAD") and (problem := wrong_origin(headers, host)):
            await refuse(send, 403, problem)
            return
        await self._app(scope, receive, adding_headers(send))


def wrong_origin(headers: dict[bytes, bytes], host: str) -> str | None:
    """Why what changes something, or takes work, is not from a page of the console."""
    if headers.get(WRITE_HEADER) != b"1":
        return "the header X-Llmcache-Console is missing"
    if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        return "JSON is expected"
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or int(length) > BODY_MAX_BYTES:
        return "the request is too long, or does not say how long it is"
    origin = headers.get(b"origin")
    if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
        return "the request comes from another site"
    return None


def adding_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in own]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return sending


async def refuse(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    sending = adding_headers(send)
    start = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
    await sending({"type": "http.response.start", "status": status, "headers": start})
    await sending({"type": "http.response.body", "body": text.encode()})
