#!/usr/bin/env python3
"""LMCache's own benchmark of L2 adapters, over llmcache, `resp` (its C++ client) and `valkey` (GLIDE), in one table.

Each measurement is `lmcache bench l2 … --no-skip-verify` on a server that was emptied before. Each adapter has a process
of its own, which runs that command line by line; they take turns, and the best of their rounds is kept, since a machine
that others use only ever makes one slower. The server's CPU is what it says of itself. A delay puts a relay before the
server that holds every byte back for so long, both ways: a network. Look-ups are of 128 chunks of 4 KiB, so that the
chunks are no part of them. Needs the environment of `make suites-lmcache`.

    python clients/python/bench/l2.py [--sizes 256 1024] [--in-flight 1 8] [--turns 3] [--rounds 3] [--delays 0 1]
        [--adapters llmcache resp valkey python] [--json FILE] [--write]     --write puts the table into docs/lmcache.md
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "suites"), str(HERE.parents[2] / "tests")]

PLUGIN = {"type": "plugin", "module_path": "llmcache.lmcache", "class_name": "LLMCacheL2Adapter"}
# Payload bytes of a round, both ways.
IN_FLIGHT_BYTES = 64 << 20
LOOKED_UP = {"size": 4, "keys": 128}
PAGE = HERE.parents[2] / "docs" / "lmcache.md"
MARKS = ("<!-- l2.py -->", "<!-- end of l2.py -->")


def adapters(port: int, connections: int) -> dict[str, dict]:
    """Each with as many connections."""
    ours = {"port": port, "connections": connections}
    return {
        "llmcache": {**PLUGIN, "adapter_params": {**ours, "native": True}},
        "resp": {"type": "resp", "host": "127.0.0.1", "port": port, "num_workers": connections},
        "valkey": {"type": "valkey", "startup_nodes": f"127.0.0.1:{port}", "num_workers": connections},
        # Ours without its extension.
        "python": {**PLUGIN, "adapter_params": {**ours, "native": False}},
        # Ours without checksums, as theirs are.
        "unchecked": {**PLUGIN, "adapter_params": {**ours, "native": True, "checksum": False}},
    }


class Way:
    """One direction of a connection: what came in, in pipes, each with the time when it goes out."""

    def __init__(self, source: socket.socket, target: socket.socket):
        self.source, self.target = source, target
        self.waiting: deque[tuple[float, tuple[int, int] | None, int]] = deque()
        # Whether more may come, whether the target takes nothing now, whether all is over.
        self.is_open, self.is_stuck, self.is_over = True, False, False


class Delay:
    """A relay in a thread: what comes in goes out so many seconds later, both ways. The kernel moves the bytes (splice):
    they are not copied, and there may be any number of them under way, so that time is all that it takes."""

    MOST = 1 << 20

    def __init__(self, port: int, seconds: float):
        self._to, self._seconds = port, seconds
        self._pipes: list[tuple[int, int]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._ways: list[Way] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            due = [way.waiting[0][0] for way in self._ways if way.waiting and not way.is_stuck]
            sources = {way.source: way for way in self._ways if way.is_open}
            targets = {way.target: way for way in self._ways if way.is_stuck}
            # Of all that wait for sockets `select` knows of less than a millisecond.
            wait = max(0.0, min(due) - time.monotonic()) if due else None
            reads, writes, _ = select.select([self._listener, *sources], [*targets], [], wait)
            for source in reads:
                self._take(sources[source]) if source in sources else self._accept()
            for target in writes:
                targets[target].is_stuck = False
            for way in self._ways:
                while way.waiting and not way.is_stuck and way.waiting[0][0] <= time.monotonic():
                    self._give(way)
            self._ways = [way for way in self._ways if not way.is_over]

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._to))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
        self._ways += [Way(client, server), Way(server, client)]

    def _pipe(self) -> tuple[int, int]:
        if self._pipes:
            return self._pipes.pop()
        pipe = os.pipe()
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, self.MOST)
        return pipe

    def _take(self, way: Way) -> None:
        pipe = self._pipe()
        try:
            size = os.splice(way.source.fileno(), pipe[1], self.MOST, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            self._pipes.append(pipe)
            return
        except OSError:
            size = 0
        way.is_open = bool(size)
        if not size:
            self._pipes.append(pipe)
        way.waiting.append((time.monotonic() + self._seconds, pipe if size else None, size))

    def _give(self, way: Way) -> None:
        due, pipe, size = way.waiting.popleft()
        try:
            if pipe is None:
                way.is_over = True
                way.target.shutdown(socket.SHUT_WR)
                return
            size -= os.splice(pipe[0], way.target.fileno(), size, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            way.is_stuck = True
        except OSError:
            # The other end is gone, and what was on its way to it.
            way.is_over = True
            for end in pipe or ():
                os.close(end)
            return
        if size:
            way.waiting.appendleft((due, pipe, size))
        else:
            self._pipes.append(pipe)


def serve() -> None:
    """In LMCache's environment: runs its command for each line of arguments."""
    from lmcache.cli.main import main as lmcache

    for line in sys.stdin:
        said, failed = io.StringIO(), ""
        try:
            with contextlib.redirect_stdout(said):
                lmcache(json.loads(line))
        except SystemExit as error:
            failed = f"it ended with {error.code}" if error.code else ""
        if not failed and "data verified OK" not in said.getvalue():
            failed = "its data was not verified"
        print(json.dumps(f"{failed}: {said.getvalue()[-3_000:]}" if failed else ""), file=sys.stdout, flush=True)


class Bench:
    """A process that runs the benchmark over one adapter."""

    def __init__(self, name: str, port: int):
        from lmcache_suites import HOME, PYTHON, told

        self.name, self._out = name, HOME / f"l2-{os.getpid()}-{name}.json"
        self._process = subprocess.Popen(
            [str(PYTHON), __file__, "--serve"],
            cwd=HOME,
            env=told(port, ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # It logs more than a pipe holds.
        self._logged: deque[str] = deque(maxlen=40)
        threading.Thread(target=lambda: self._logged.extend(self._process.stderr), daemon=True).start()

    def run(self, server, spec: dict, size: int, keys: int, in_flight: int, rounds: int) -> dict[str, float]:
        """One run: what it measured."""
        with server.wire() as wire:
            assert wire("FLUSHALL") == "OK"
        arguments = ["bench", "l2", "--l2-adapter", json.dumps(spec), "--num-keys", keys, "--data-size-kb", size]
        arguments += ["--rounds", rounds, "--in-flight", in_flight, "--warmup-rounds", 1]
        arguments += ["--lookup-max-hit-rate", "1.0", "--no-skip-verify", "--format", "json", "--output", self._out]
        before = cpu(server)
        self._process.stdin.write(json.dumps([str(each) for each in arguments]) + "\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        if not told or (failed := json.loads(told)):
            raise SystemExit(f"{self.name}: {failed if told else 'it is gone'}\n{''.join(self._logged)}")
        chunks = keys * in_flight * (rounds + 1)
        row = {"server_us": (cpu(server) - before) / chunks * 1e6}
        for op in json.loads(self._out.read_text())["metrics"].values():
            name = op.get("operation")
            if name is None:
                continue
            if op["total_success"] != op["total_keys"] or op["rounds_timed_out"]:
                raise SystemExit(f"{self.name} lost keys: {op}")
            best = op["duration_min_ms"] / 1e3
            row[name.lower()] = keys * in_flight * (size * 1024 / 1e9 if name != "Lookup" else 1) / best
        self._out.unlink()
        return row

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)


def cpu(server) -> float:
    info = server.client().info("cpu")
    return info["used_cpu_user"] + info["used_cpu_sys"]


def better(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Of each number the better: the least CPU, else the most."""
    return {name: (min if name == "server_us" else max)(value, other.get(name, value)) for name, value in one.items()}


def ratio(rows: dict[str, dict[str, float]], name: str) -> str:
    """What ours is of the better of the others."""
    others = [row[name] for adapter, row in rows.items() if adapter in ("resp", "valkey")]
    return f"{rows['llmcache'][name] / max(others):.2f} x" if others and "llmcache" in rows else "-"


def tables(measured: list[dict]) -> str:
    """Look-ups, then payloads; one line for each adapter."""
    lookups = [
        "| Delay | In flight | Adapter | Chunks looked up a second | Server CPU a chunk |",
        "|---|---|---|---|---|",
    ]
    payloads = ["| Delay | Chunk | In flight | Adapter | Store GB/s | Load GB/s | Server CPU a chunk |"]
    payloads += ["|---|---|---|---|---|---|---|"]
    for each in measured:
        size = each["size"]
        chunk = f"{size} KiB" if size < 1024 else f"{size // 1024} MiB"
        for name, row in each["rows"].items():
            place = f"| {each['delay']:g} ms |"
            if size == LOOKED_UP["size"]:
                told = f"{row['lookup']:,.0f}" + (f" ({ratio(each['rows'], 'lookup')})" if name == "llmcache" else "")
                lookups.append(f"{place} {each['in_flight']} | {name} | {told} | {row['server_us']:,.0f} us |")
                continue
            cells = [
                f"{row[way]:.2f}" + (f" ({ratio(each['rows'], way)})" if name == "llmcache" else "")
                for way in ("store", "load")
            ]
            cells.append(f"{row['server_us']:,.0f} us")
            payloads.append(f"{place} {chunk} | {each['in_flight']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lookups) + "\n\n" + "\n".join(payloads)


def write(text: str) -> None:
    """Puts the tables into the page, between its marks."""
    page = PAGE.read_text()
    first, last = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    PAGE.write_text(f"{page[:first]}\n{text}\n{page[last:]}")


def settings(chosen: argparse.Namespace) -> list[dict]:
    """What is measured: the look-ups, then each size; of each so many in flight."""
    rows = []
    for delay in chosen.delays:
        for size in [LOOKED_UP["size"], *chosen.sizes]:
            for in_flight in chosen.in_flight:
                is_lookup = size == LOOKED_UP["size"]
                keys = (
                    LOOKED_UP["keys"] if is_lookup else max(2, min(128, (IN_FLIGHT_BYTES >> 10) // size // in_flight))
                )
                rounds = chosen.rounds * 5 if is_lookup and not delay else chosen.rounds
                rows.append({"delay": delay, "size": size, "in_flight": in_flight, "keys": keys, "rounds": rounds})
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description="LMCache's benchmark of L2 adapters in one table")
    options.add_argument("--sizes", type=int, nargs="*", default=[256, 1024, 2048, 16_384], help="KiB of a chunk")
    options.add_argument("--in-flight", type=int, nargs="*", default=[1, 8])
    options.add_argument("--turns", type=int, default=3, help="how often each adapter has its turn at each line")
    options.add_argument("--rounds", type=int, default=3, help="rounds of a turn")
    options.add_argument("--delays", type=float, nargs="*", default=[0, 1], help="milliseconds each byte is held back")
    options.add_argument("--connections", type=int, default=4)
    options.add_argument("--adapters", nargs="*", default=["llmcache", "resp", "valkey"])
    options.add_argument("--json")
    options.add_argument("--write", action="store_true", help="put the tables into docs/lmcache.md")
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        return serve()
    from harness.server import Fleet
    from lmcache_suites import HOME, ROOT

    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so"))
    work = HOME / f"run-l2-{os.getpid()}"
    binary = os.environ.get("LLMCACHE_TEST_SERVER") or shutil.which("redis-server") or "redis-server"
    fleet, measured = Fleet(Path(binary), module, work), settings(chosen)
    benches = []
    try:
        server = fleet.launch(save="")
        ports = {delay: Delay(server.port, delay / 1e3).port if delay else server.port for delay in chosen.delays}
        benches = [Bench(name, server.port) for name in chosen.adapters]
        for each in measured:
            each["rows"] = {}
            for _ in range(chosen.turns):
                for bench in benches:
                    spec = adapters(ports[each["delay"]], chosen.connections)[bench.name]
                    row = bench.run(server, spec, each["size"], each["keys"], each["in_flight"], each["rounds"])
                    each["rows"][bench.name] = better(row, each["rows"].get(bench.name, {}))
            print(
                f"{each['size']} KiB, {each['in_flight']} in flight, {each['delay']:g} ms: {each['rows']}", flush=True
            )
    finally:
        for bench in benches:
            bench.end()
        fleet.end()
        shutil.rmtree(work, ignore_errors=True)
    text = tables(measured)
    print(text)
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(measured, indent=1))
    if chosen.write:
        write(text)


if __name__ == "__main__":
    main()
