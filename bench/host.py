"""Servers to be measured: started on loopback in a folder of their own, ended by their pid.

Owns: the process, its CPU clock, its memory figures. What is measured is the callers' business.
"""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import time
from pathlib import Path

from wire import Failure, Wire

PORTS = range(20_000, 30_000)
# No persistence and no cron work that could fall into one contender's round and not the other's.
QUIET = {"save": "", "appendonly": "no", "bind": "127.0.0.1", "protected-mode": "no", "hz": 10}


class Host:
    """A running server."""

    def __init__(self, name: str, binary: Path, folder: Path, module: Path | None = None, **options: object):
        self.name = name
        self.options = options
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(20):
            self.port = free_port()
            self.process = self._launch(binary, module)
            if self._came_up():
                break
            self.stop()
        else:
            log = (folder / "server.log").read_text(errors="replace")
            raise SystemExit(f"bench: {name} does not start; its log ends:\n{log[-2_000:]}")
        self.control = self.wire()

    def _launch(self, binary: Path, module: Path | None) -> subprocess.Popen:
        arguments = [str(binary)]
        if module is not None:
            arguments += ["--loadmodule", str(module)]
        for option, value in {**QUIET, "port": self.port, "dir": self.folder, **self.options}.items():
            arguments += [f"--{option}", str(value)]
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _came_up(self) -> bool:
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), Wire(self.port) as wire:
                if wire("PING") == "PONG":
                    return True
            time.sleep(0.02)
        return False

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process; nothing of it is kept."""
        self.process.kill()
        self.process.wait()

    def wire(self) -> Wire:
        return Wire(self.port, timeout=600)

    def __call__(self, *arguments):
        """Runs one command on a connection of its own; an error of the server ends the benchmark."""
        reply = self.control(*arguments)
        if isinstance(reply, Failure):
            raise SystemExit(f"bench: {self.name} refused {arguments[0]}: {reply.text}")
        return reply

    def cpu_seconds(self) -> float:
        """CPU time of the process, all its threads, those that ended too."""
        # The clock of another process, in the numbering of Linux.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def info(self, section: str) -> dict[str, str]:
        text = self("INFO", section).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def used_memory(self) -> int:
        """used_memory once background work has stopped changing it."""
        seen: list[int] = []
        for _ in range(100):
            seen.append(int(self.info("memory")["used_memory"]))
            if len(seen) > 3 and max(seen[-3:]) - min(seen[-3:]) < 4_096:
                break
            time.sleep(0.1)
        return min(seen[-3:])


def free_port() -> int:
    for _ in range(1_000):
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit("bench: no free port")
