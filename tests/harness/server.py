"""One server process: started in a folder of its own, stopped by its pid, its log read at the end.

Ports come from below the range that the system hands out to clients, and a start that lost a port
to somebody else is tried again on another.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from .waiting import wait_until
from .wire import Wire, encode

PORTS = range(20_000, 30_000)
BUS_OFFSET = 10_000
# What a server writes when something in it broke. No test may leave one of these behind.
BROKEN = ("panicked", "crashed", "BUG REPORT", "ASSERTION FAILED", "AddressSanitizer", "LeakSanitizer")
# A command that an AOF or a primary told was refused: they tell nothing but what was accepted once.
REFUSED = "sending an error to its"

_random = random.Random(os.getpid() * 7919)


def free_port() -> int:
    """A loopback port that nobody holds, with its cluster bus port."""
    for _ in range(1_000):
        port = _random.choice(PORTS)
        if all(_is_free(p) for p in (port, port + BUS_OFFSET)):
            return port
    raise AssertionError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Server:
    """A server with the module loaded."""

    def __init__(
        self,
        binary: Path,
        module: Path | None,
        folder: Path,
        options: Mapping[str, Any] | None = None,
        config_file: Path | None = None,
    ):
        self.binary = binary
        self.module = module
        self.folder = folder
        self.options = dict(options or {})
        self.config_file = config_file
        self.environment: dict[str, str] = {}
        self.port = 0
        self.process: subprocess.Popen | None = None
        self._clients: list[redis.Redis] = []
        self._killed = False
        # Set by who plays its primary or changes its AOF.
        self.may_refuse = False
        folder.mkdir(parents=True, exist_ok=True)

    # Starting and stopping.

    def start(self) -> Server:
        for _ in range(5):
            if self.port == 0:
                self.port = free_port()
            self._launch()
            if self._came_up():
                return self
            if "Address already in use" not in self.log():
                break
            self.port = 0
        raise AssertionError(f"the server did not start; its log ends:\n{self.log()[-4_000:]}")

    def _launch(self) -> None:
        settings: dict[str, Any] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "logfile": self.folder / "server.log",
            "save": "",
            "daemonize": "no",
            "enable-debug-command": "yes",
            "repl-diskless-sync-delay": 0,
            **self.options,
        }
        arguments = [str(self.binary), *([str(self.config_file)] if self.config_file else [])]
        if self.module is not None:
            arguments += ["--loadmodule", str(self.module)]
        for name, value in settings.items():
            arguments += [f"--{name}", *([str(v) for v in value] if isinstance(value, list) else [str(value)])]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RUST_")} | self.environment
        self._killed = False
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "stdout.log").open("ab"),
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def _came_up(self, seconds: float = 60.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            with contextlib.suppress(OSError), Wire(self.port) as wire:
                reply = wire("PING")
                if reply == "PONG" or getattr(reply, "word", "") in ("NOAUTH", "MASTERDOWN"):
                    return True
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        """Asks it to go, and sees that it does."""
        self.close_clients()
        if self.process is None or self._killed:
            return
        gone_by_itself = self.process.poll()
        if gone_by_itself is None:
            # The command is quicker than the signal, which a server sees to ten times a second; the
            # signal is for a server that does not let this connection in. Forced: one that writes its
            # first AOF would refuse.
            with contextlib.suppress(OSError), Wire(self.port, timeout=60) as wire:
                wire.socket.sendall(encode(["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]))
                wire.file.read(1)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(
                    f"the server did not stop when asked and was killed; its log ends:\n{self.log()[-3_000:]}"
                ) from None
        self.process = None
        if gone_by_itself is not None:
            raise AssertionError(
                f"the server ended by itself with status {gone_by_itself}; its log ends:\n{self.log()[-6_000:]}"
            )

    def kill9(self) -> None:
        """Ends it at once: it writes nothing more."""
        self.close_clients()
        self.process.kill()
        self.process.wait()
        self._killed = True

    def restart(self) -> Server:
        """Starts it again on what its folder holds; stops it first if it still runs."""
        self.stop()
        return self.start()

    def close_clients(self) -> None:
        for client in self._clients:
            with contextlib.suppress(Exception):
                client.close()
        self._clients.clear()

    # What a test asks it for.

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def client(self, resp: int = 2, **given) -> redis.Redis:
        """A redis-py client; closed with the server."""
        given = {"protocol": resp, "socket_timeout": 60, "decode_responses": False, **given}
        client = redis.Redis(host="127.0.0.1", port=self.port, **given)
        self._clients.append(client)
        return client

    def wire(self, resp: int = 2, timeout: float = 60.0) -> Wire:
        return Wire(self.port, resp, timeout)

    def info(self, section: str = "everything") -> dict[str, str]:
        with self.wire() as wire:
            text = wire("INFO", section).decode(errors="replace")
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    @property
    def is_valkey(self) -> bool:
        return "valkey_version" in self.info("server")

    @property
    def gives_modules_categories(self) -> bool:
        """Whether a module's commands can be in ACL categories: from 7.2 on, as Valkey reports too."""
        major, minor = self.info("server")["redis_version"].split(".")[:2]
        return (int(major), int(minor)) >= (7, 2)

    def used_memory(self) -> int:
        return int(self.info("memory")["used_memory"])

    def digest(self) -> bytes:
        """DEBUG DIGEST: one number for everything in every database."""
        with self.wire() as wire:
            return str(wire("DEBUG", "DIGEST")).encode()

    def log(self) -> str:
        text = ""
        for name in ("server.log", "stdout.log"):
            path = self.folder / name
            if path.exists():
                text += path.read_text(errors="replace")
        return text

    def check_log(self) -> None:
        """Fails if the log tells of a panic, a crash, a failed assertion, or that it refused what it has to obey."""
        log = self.log()
        for word in BROKEN if self.may_refuse else (*BROKEN, REFUSED):
            at = log.find(word)
            assert at < 0, f"the server's log says {word!r}:\n{log[max(0, at - 1_000) : at + 4_000]}"


class Fleet:
    """All servers that one test starts; whatever happens, they end with it."""

    def __init__(self, binary: Path, module: Path | None, folder: Path):
        self.binary = binary
        self.module = module
        self.folder = folder
        self.servers: list[Server] = []
        # What every server is started with beside the environment of the tests.
        self.environment: dict[str, str] = {}

    def launch(self, module: bool = True, config_file: Path | None = None, **options) -> Server:
        """Starts one more; see `prepare` for the options."""
        return self.prepare(module, config_file, **options).start()

    def prepare(self, module: bool = True, config_file: Path | None = None, **options) -> Server:
        """One more that is not started yet; `maxmemory_policy="allkeys-lfu"` is `maxmemory-policy allkeys-lfu`.

        A module setting is written with two underscores: `llmcache__orphan_grace=1`. A configuration
        file comes before the options.
        """
        named = {k.replace("__", ".").replace("_", "-"): v for k, v in options.items()}
        if "llmcache.embed-models" in named:
            # A second is short on a slow machine; who tests the bound sets it.
            named = {"llmcache.embed-timeout-ms": 60_000, **named}
        folder = self.folder / f"server-{len(self.servers)}"
        loaded = self.module if module else None
        server = Server(self.binary, loaded, folder, named, config_file)
        server.environment = dict(self.environment)
        self.servers.append(server)
        return server

    def end(self) -> None:
        problems = []
        for server in reversed(self.servers):
            for check in (server.stop, server.check_log):
                try:
                    check()
                except AssertionError as problem:
                    problems.append(str(problem))
                    if server.alive:
                        server.kill9()
        assert not problems, "\n\n".join(problems)


def settle_memory(server: Server, seconds: float = 60.0) -> int:
    """used_memory once background work has stopped changing it."""
    seen: list[int] = []
    with server.wire() as wire:

        def quiet() -> bool:
            info = wire("INFO", "memory")
            seen.append(int(info.split(b"used_memory:", 1)[1].split(b"\r", 1)[0]))
            return len(seen) > 6 and max(seen[-6:]) - min(seen[-6:]) < 8_192

        wait_until(quiet, "used_memory settles", seconds, step=0.04)
    return min(seen[-6:])


def settle_below(server: Server, most: int, seconds: float) -> int:
    """used_memory once it has settled at `most` or below; where it does not in time, what it settled at.

    What is freed in the background may stand still for a while before it goes on.
    """
    end = time.monotonic() + seconds
    while (settled := settle_memory(server, seconds)) > most and time.monotonic() < end:
        pass
    return settled
