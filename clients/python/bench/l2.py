#!/usr/bin/env python3
"""LMCache's own benchmark of L2 adapters, over llmcache, `resp` (its C++ client) and `valkey` (GLIDE), in one table.

Each row is `lmcache bench l2 … --no-skip-verify` on a server of its own that is emptied before; the server's CPU is what
it says of itself. `--delay` puts a relay before each server that holds every byte back for so long: a network.
Needs the environment of `make suites-lmcache`.

    python clients/python/bench/l2.py [--sizes 256 1024] [--in-flight 1 8] [--keys 128] [--rounds 3] [--delay MS] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
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

from harness.server import Fleet  # noqa: E402
from lmcache_suites import HOME, ROOT, told  # noqa: E402

PLUGIN = {"type": "plugin", "module_path": "llmcache.lmcache", "class_name": "LLMCacheL2Adapter"}


def adapters(port: int, connections: int) -> dict[str, dict]:
    """The three, with as many connections each."""
    return {
        "llmcache": {**PLUGIN, "adapter_params": {"port": port, "connections": connections}},
        "resp": {"type": "resp", "host": "127.0.0.1", "port": port, "num_workers": connections},
        "valkey": {"type": "valkey", "startup_nodes": f"127.0.0.1:{port}", "num_workers": connections},
    }


class Delay:
    """A relay in a thread: what comes in goes out so many seconds later, both ways."""

    def __init__(self, port: int, seconds: float):
        self._to, self._seconds = port, seconds
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        while True:
            wait = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            for key, _ in self._selector.select(wait):
                source = key.fileobj
                if source is self._listener:
                    client, _ = self._listener.accept()
                    server = socket.create_connection(("127.0.0.1", self._to))
                    for one, other in ((client, server), (server, client)):
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        peers[one] = other
                        self._selector.register(one, selectors.EVENT_READ)
                    continue
                try:
                    data = source.recv(1 << 20)
                except OSError:
                    data = b""
                waiting.append((time.monotonic() + self._seconds, peers[source], data))
                if not data:
                    self._selector.unregister(source)
            while waiting and waiting[0][0] <= time.monotonic():
                _, target, data = waiting.popleft()
                try:
                    target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
                except OSError:
                    continue


def cpu(server) -> float:
    info = server.client().info("cpu")
    return info["used_cpu_user"] + info["used_cpu_sys"]


def measure(server, port: int, spec: dict, size: int, keys: int, in_flight: int, rounds: int) -> dict[str, float]:
    """One run: what it printed, as numbers."""
    with server.wire() as wire:
        assert wire("FLUSHALL") == "OK"
    before = cpu(server)
    out = HOME / f"l2-{server.port}.json"
    command = [
        str(HOME / "venv" / "bin" / "lmcache"),
        "bench",
        "l2",
        "--l2-adapter",
        json.dumps(spec),
        "--num-keys",
        str(keys),
    ]
    command += [
        "--data-size-kb",
        str(size),
        "--rounds",
        str(rounds),
        "--in-flight",
        str(in_flight),
        "--warmup-rounds",
        "1",
    ]
    command += ["--lookup-max-hit-rate", "1.0", "--no-skip-verify", "--format", "json", "--output", str(out)]
    done = subprocess.run(command, cwd=HOME, env=told(port, ""), capture_output=True, text=True, timeout=900)
    if done.returncode or "data verified OK" not in done.stdout:
        raise SystemExit(f"{spec['type']} failed:\n{done.stdout[-3_000:]}{done.stderr[-3_000:]}")
    chunks = keys * in_flight * (rounds + 1)
    row = {"server_us_a_chunk": (cpu(server) - before) / chunks * 1e6}
    for op in json.loads(out.read_text())["metrics"].values():
        name = op.get("operation")
        if name is None:
            continue
        if op["total_success"] != op["total_keys"] or op["rounds_timed_out"]:
            raise SystemExit(f"{spec['type']} lost keys: {op}")
        # The best round: on a machine that others use too the mean tells of them.
        best = op["duration_min_ms"] / 1e3
        if name == "Lookup":
            row["lookups"] = keys * in_flight / best
        else:
            row[name.lower()] = keys * in_flight * size * 1024 / best / 1e9
    out.unlink()
    return row


def table(rows: list[dict]) -> str:
    """One line a run, as the page has it."""
    lines = [
        "| Chunk | In flight | Delay | Adapter | Keys looked up a second | Store GB/s | Load GB/s | Server CPU a chunk |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        chunk = f"{row['size']} KiB" if row["size"] < 1024 else f"{row['size'] // 1024} MiB"
        lines.append(
            f"| {chunk} | {row['in_flight']} | {row['delay']:g} ms | {row['adapter']} | {row['lookups']:,.0f} | "
            f"{row['store']:.2f} | {row['load']:.2f} | {row['server_us_a_chunk']:,.0f} us |"
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description="LMCache's benchmark of L2 adapters in one table")
    options.add_argument("--sizes", type=int, nargs="*", default=[256, 1024, 2048, 16_384], help="KiB of a chunk")
    options.add_argument("--in-flight", type=int, nargs="*", default=[1, 8])
    options.add_argument(
        "--keys", type=int, default=0, help="chunks of a task; 0 is 128, or what 64 MiB in flight allow"
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--delay", type=float, default=0.0, help="milliseconds that each byte is held back, both ways")
    options.add_argument("--connections", type=int, default=4)
    options.add_argument("--only", nargs="*", help="only these adapters")
    options.add_argument("--json")
    chosen = options.parse_args()
    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so"))
    work = HOME / "run-l2"
    shutil.rmtree(work, ignore_errors=True)
    fleet, rows = Fleet(Path(shutil.which("redis-server") or "redis-server"), module, work), []
    try:
        server = fleet.launch(save="")
        port = Delay(server.port, chosen.delay / 1e3).port if chosen.delay else server.port
        for size in chosen.sizes:
            for in_flight in chosen.in_flight:
                keys = chosen.keys or max(2, min(128, (64 << 10) // size // in_flight))
                for name, spec in adapters(port, chosen.connections).items():
                    if chosen.only and name not in chosen.only:
                        continue
                    row = measure(server, port, spec, size, keys, in_flight, chosen.rounds)
                    rows.append(
                        {
                            "adapter": name,
                            "size": size,
                            "in_flight": in_flight,
                            "keys": keys,
                            "delay": chosen.delay,
                            **row,
                        }
                    )
                    print(rows[-1], flush=True)
    finally:
        fleet.end()
    print(table(rows))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
