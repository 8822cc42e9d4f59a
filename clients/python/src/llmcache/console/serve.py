"""`llmcache console`: serves the console until it is interrupted."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
import sys

from .security import is_loopback

TOKEN_BYTES_LEAST = 16


def arguments(made: argparse.ArgumentParser) -> None:
    """The options of the command."""
    made.add_argument(
        "url", nargs="?", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), help="the server"
    )
    made.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1); elsewhere a token is needed")
    made.add_argument("--port", type=int, default=8077, help="the port (8077); 0 for any")
    made.add_argument("--allow-write", action="store_true", help="let pages give feedback and invalidate answers")
    made.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name under which it is reached"
    )
    made.add_argument(
        "--token",
        default=os.environ.get("LLMCACHE_CONSOLE_TOKEN"),
        help="what must be known to read it (or LLMCACHE_CONSOLE_TOKEN)",
    )


def run(options: argparse.Namespace) -> int:
    """Serves."""
    try:
        import uvicorn

        from .app import application
        from .store import Store
    except ImportError:
        raise SystemExit(
            "llmcache: the console needs starlette and uvicorn: pip install 'llmcache-client[console]'"
        ) from None
    token = options.token
    if token is not None and len(token) < TOKEN_BYTES_LEAST:
        raise SystemExit(f"llmcache: a token has at least {TOKEN_BYTES_LEAST} characters")
    if token is None and not is_loopback(options.host):
        token = secrets.token_urlsafe(24)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((options.host, options.port))
        # Whoever reads the address may ask at once.
        listening.listen()
        port = listening.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        names = [*options.allow_host, *([] if is_loopback(options.host) else [options.host])]
        server: uvicorn.Server | None = None

        def is_ending() -> bool:
            return server is not None and server.should_exit

        app = application(Store(options.url, options.allow_write), names, token, is_ending)
        asked = f"?token={token}" if token else ""
        print(f"llmcache console: http://{host}:{port}/{asked}", flush=True)
        # No access log: addresses have tokens and names of keys in them.
        config = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=10,
        )
        server = uvicorn.Server(config)
        # uvicorn has ended in order when it hands Ctrl-C on.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    print("llmcache console: ended", file=sys.stderr)
    return 0
