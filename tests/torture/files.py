"""AOFs that were cut or changed: a server starts on them or says why it does not, and never breaks.

An AOF that was cut holds what was written before: the server starts, and what it holds is the same however often it is
loaded. The files are those that random traffic left.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from harness.server import BROKEN, Fleet, Server
from harness.wire import Failure

from .grammar import read
from .hostile import play
from .pairs import REPLY_SECONDS, Fault, Snapshot
from .traffic import Traffic

STEPS = 200
# The server does not check a text against a checksum: without a preamble each change reaches who reads it.
OPTIONS = {
    "appendonly": "yes",
    "aof_use_rdb_preamble": "no",
    "aof_load_truncated": "yes",
    "auto_aof_rewrite_percentage": 0,
    "llmcache__sweep_interval_ms": 20,
}


class Files:
    """Copies of one server's files."""

    def __init__(self, fleet: Fleet, seed: int):
        self.fleet = fleet
        self.seed = seed
        self.rng = random.Random(seed)
        self.cut = self.started = self.declined = 0
        self.done = ""

    @property
    def figures(self) -> dict[str, int]:
        return {"cut AOFs": self.cut, "changed AOFs loaded": self.started, "changed AOFs declined": self.declined}

    def report(self) -> str:
        return f"seed {self.seed}, last: {self.done}"

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        source = self.fleet.launch(**OPTIONS)
        with source.wire() as wire:
            traffic = Traffic(self.seed, read(wire))
        play(source, traffic, STEPS)
        source.stop()
        while time.monotonic() < end:
            server = self.fleet.prepare(**OPTIONS)
            try:
                self.one(source.folder / "appendonlydir", server)
            finally:
                self.fleet.servers.remove(server)
                shutil.rmtree(server.folder, ignore_errors=True)

    def one(self, kept: Path, server: Server) -> None:
        folder = server.folder / "appendonlydir"
        shutil.copytree(kept, folder)
        victim = self.rng.choice([path for path in folder.iterdir() if path.suffix == ".aof" and path.stat().st_size])
        data = bytearray(victim.read_bytes())
        at = self.rng.randrange(len(data))
        # A server takes the last file alone for one that it was writing when it ended.
        is_last = victim == max(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]), default=None)
        is_cut = is_last and self.rng.random() < 0.6
        if is_cut:
            # Redis 7.0 leaves the beginning of a transaction that was cut within a command of it, and takes what it
            # writes next for the rest: no module has a say in that.
            at = max(at, data.lower().find(b"exec\r\n", at) + 6) if _ends_in_transaction(data[:at]) else at
            del data[at:]
            self.done = f"{victim.name} cut at {at}"
        else:
            for _ in range(self.rng.choice((1, 1, 3))):
                data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            self.done = f"{victim.name} changed"
        victim.write_bytes(data)
        server.may_refuse = True
        try:
            server.start()
        except AssertionError:
            self.check_end(server, is_cut)
            return
        try:
            self.check(server)
            if is_cut:
                before = Snapshot.settled(server)
                server.restart()
                if differences := before.differences(Snapshot.settled(server)):
                    raise Fault(f"{self.done}: loaded twice, it is another: {differences[:5]}")
        finally:
            server.stop()
            server.check_log()
        self.cut += is_cut
        self.started += not is_cut

    def check_end(self, server: Server, is_cut: bool) -> None:
        """It did not start: by its own will, and an AOF that is only short is no reason."""
        status, log = server.process.returncode, server.log()
        if is_cut or status != 1 or any(word in log for word in BROKEN):
            raise Fault(f"{self.done}: the server ended with status {status}; its log ends:\n{log[-2_000:]}")
        server.process = None
        self.declined += 1

    def check(self, server: Server) -> None:
        with server.wire(timeout=REPLY_SECONDS) as wire:
            if isinstance(told := wire("DEBUG", "DIGEST"), Failure):
                raise Fault(f"{self.done}: {told.text}")
            if wire("PING") != "PONG":
                raise Fault(f"{self.done}: the server does not answer")


def _ends_in_transaction(data: bytes) -> bool:
    text = bytes(data).lower()
    return text.rfind(b"\r\nmulti\r\n") > text.rfind(b"\r\nexec\r\n")
