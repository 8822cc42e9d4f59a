"""A Redis or Valkey server with llmcache loaded, for tests and notebooks: started in a folder of its own, ended with
the process that started it.

    from llmcache_server import serve

    with serve() as server:
        server.client().execute_command("LLMCACHE.SET", "faq", "PROMPT", "What is new?", "RESPONSE", "A wheel.")

The wheel carries the module; the server is the one in PATH (`redis-server` 7.0 or newer, or `valkey-server`), or the one
that `LLMCACHE_SERVER` or `serve(server=...)` names. It listens on 127.0.0.1 and on a socket in its folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["CannotStart", "Served", "module", "serve"]

START_SECONDS = 30
STOP_SECONDS = 20
ATTEMPTS = 5


class CannotStart(RuntimeError):
    """Why there is no server."""


def module() -> Path:
    """The module that the wheel carries."""
    return Path(__file__).with_name("libllmcache.so")


def _binary(given: str | os.PathLike[str] | None) -> str:
    named = given or os.environ.get("LLMCACHE_SERVER")
    for name in [named] if named else ["redis-server", "valkey-server"]:
        if found := shutil.which(os.fspath(name)):
            return found
    raise CannotStart(f"no {named or 'redis-server or valkey-server'} in PATH; on Debian: apt-get install redis-server")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A running server. `stop` ends it, and so does the end of a `with` block or of the interpreter."""

    def __init__(self, binary: str, folder: Path, port: int, owns_folder: bool, options: Mapping[str, Any]):
        self.folder, self.port, self._owns_folder = folder, port, owns_folder
        self.socket = folder / "redis.sock"
        self.log_file = folder / "server.log"
        self._pid = os.getpid()
        loaded = module()
        if not os.access(loaded, os.X_OK):
            # A server loads only a file that may be executed, which some installers do not keep.
            loaded = Path(shutil.copy(loaded, folder / "libllmcache.so"))
            loaded.chmod(0o755)
        settings = {
            "port": port, "bind": "127.0.0.1", "unixsocket": self.socket, "unixsocketperm": 700, "dir": folder,
            "logfile": self.log_file, "save": "", "daemonize": "no", **options,
        }  # fmt: skip
        arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        command = [binary, "--loadmodule", str(loaded), *arguments]
        # What is wrong with an option is said before there is a log.
        with (folder / "said.log").open("wb") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> Any:
        """A client of redis-py, which is to be installed."""
        import redis

        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    def log(self) -> str:
        files = (self.folder / "said.log", self.log_file)
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as asked:
                asked.settimeout(5)
                asked.connect(str(self.socket))
                asked.sendall(b"PING\r\n")
                return asked.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _wait(self) -> bool:
        """Whether it came up; false where it ended by itself."""
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                self.stop()
                raise CannotStart(f"the server does not answer:\n{self.log()[-2000:]}")
            time.sleep(0.02)
        return True

    def stop(self) -> None:
        """Ends the server, and removes its folder unless it was given."""
        if os.getpid() != self._pid:
            return  # a forked child leaves it to its parent
        atexit.unregister(self.stop)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def serve(
    *, port: int = 0, folder: str | os.PathLike[str] | None = None, server: str | os.PathLike[str] | None = None, **options: Any
) -> Served:
    """Starts a server and returns when it answers.

    `options` are settings of the server; `_` stands for `-` and `__` for `.`: `maxmemory="100mb"`,
    `llmcache__auto_create="no"`. With `folder` what it saves stays there (`save="60 1"` or `appendonly="yes"`).
    """
    binary = _binary(server)
    named = {name.replace("__", ".").replace("_", "-"): value for name, value in options.items()}
    said = ""
    for _ in range(1 if port else ATTEMPTS):
        where = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="llmcache-"))
        where.mkdir(parents=True, exist_ok=True)
        served = Served(binary, where.resolve(), port or _free_port(), folder is None, named)
        if served._wait():
            return served
        said = served.log()
        served.stop()
        if "Address already in use" not in said:
            break
    raise CannotStart(f"{binary} ended by itself:\n{said[-2000:]}")
