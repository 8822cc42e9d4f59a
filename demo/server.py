"""A redis-server of the demo's own: in a folder that goes with it, on a socket nobody else can reach.

Owns: the process, its folder, their end. The server is stopped by its process id, also when the demo
is interrupted.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis

STARTUP_SECONDS = 10
SHUTDOWN_SECONDS = 5


class CannotStart(Exception):
    """Why there is no server."""


class Server:
    def __init__(self, binary: str, module: Path, model: Path | None = None):
        if shutil.which(binary) is None:
            raise CannotStart(f"no {binary} in PATH; on Debian: apt-get install redis-server")
        if not module.is_file():
            raise CannotStart(f"no module at {module}; `make build` makes it")
        self.folder = Path(tempfile.mkdtemp(prefix="llmcache-demo-"))
        self.socket = self.folder / "redis.sock"
        self.log = self.folder / "redis.log"
        # In a group of its own, so that Ctrl-C reaches the demo alone, which then stops the server.
        self.process = subprocess.Popen(
            [
                *(binary, "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700"),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                *("--dir", self.folder, "--logfile", self.log, "--loadmodule", module),
                *(("--llmcache.embed-models", f"minilm={model}") if model else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def client(self) -> redis.Redis:
        """A connection that speaks RESP3, once the server answers."""
        client = redis.Redis(unix_socket_path=str(self.socket), protocol=3)
        end = time.monotonic() + STARTUP_SECONDS
        while True:
            if self.process.poll() is not None:
                raise CannotStart("redis-server ended at once:\n" + self.last_words())
            try:
                client.ping()
                return client
            except redis.exceptions.ConnectionError:
                if time.monotonic() > end:
                    raise CannotStart("redis-server does not answer:\n" + self.last_words()) from None
                time.sleep(0.02)

    def last_words(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else "(no log)"
        return "\n".join(text.splitlines()[-8:])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(SHUTDOWN_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
