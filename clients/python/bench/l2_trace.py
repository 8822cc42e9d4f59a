#!/usr/bin/env python3
"""Hits at equal memory through LMCache's adapters: the Mooncake conversation trace, llmcache beside `resp`.

Three servers of one binary, each driven by a process of its own that does what LMCache does for
a request: look up all blocks, load the leading run, store the others. `resp` leaves eviction to `maxmemory` with
`allkeys-lru` and `allkeys-lfu`; ours has a BUDGET that is kept so that used_memory stays below the same bound. A hit is
a block of the leading run that was loaded, and its bytes are compared. Needs the environment of `make suites-lmcache`.

    python clients/python/bench/l2_trace.py TRACE [--memory-mib 96] [--pace 0.12] [--requests N] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "suites"), str(HERE.parents[2] / "tests")]

PAYLOAD = 4 << 10
NAMESPACE = "{trace}"
LOOK_EVERY = 25


def requests(trace: str, most: int):
    with open(trace) as lines:
        for number, line in enumerate(lines):
            if number >= most:
                return
            row = json.loads(line)
            yield row["timestamp"] / 1000, row["hash_ids"]


def drive(kind: str, port: int, options) -> dict:
    """In LMCache's environment: the requests of the trace through one adapter."""
    import torch
    from lmcache.v1.distributed.api import ObjectKey
    from lmcache.v1.distributed.l2_adapters import create_l2_adapter
    from lmcache.v1.distributed.l2_adapters.config import get_l2_adapter_config_class
    from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj

    from llmcache._engine.wire import Endpoint, Wire

    spec = {"type": "resp", "host": "127.0.0.1", "port": port, "num_workers": 2}
    if kind == "llmcache":
        spec = {"type": "plugin", "module_path": "llmcache.lmcache", "class_name": "LLMCacheL2Adapter"}
        spec["adapter_params"] = {"port": port, "connections": 2}

    def make():
        return create_l2_adapter(get_l2_adapter_config_class(spec["type"]).from_dict(spec))

    adapter, hung = make(), 0
    control = Wire(Endpoint(port=port, timeout=60))
    control.connect()

    def memory(fill: bytes | None) -> TensorMemoryObj:
        data = torch.zeros(PAYLOAD, dtype=torch.uint8)
        if fill is not None:
            data.copy_(torch.frombuffer(bytearray(fill * (PAYLOAD // 32)), dtype=torch.uint8))
        shape = MemoryObjMetadata(torch.Size([PAYLOAD]), torch.uint8, 0, PAYLOAD, MemoryFormat.KV_2LTD, 1)
        return TensorMemoryObj(data, shape, parent_allocator=None)

    def waited(fd: int, result):
        """None where the adapter does not answer for so long: it is made anew, and the request is a miss."""
        nonlocal adapter, hung
        while (told := result()) is None:
            if not select.select([fd], [], [], 15)[0]:
                hung, adapter = hung + 1, make()
                return None
            os.eventfd_read(fd)
        return told

    def used() -> int:
        text = control.call(["INFO", "memory"]).decode()
        return int(next(line for line in text.splitlines() if line.startswith("used_memory:")).split(":")[1])

    bound = options.memory_mib << 20
    budget, peak = int((bound - used()) * 0.85), 0
    digests: dict[int, bytes] = {}
    hits = blocks = stored = 0
    start, lag = time.monotonic(), 0.0
    for number, (at, ids) in enumerate(requests(options.trace, options.requests)):
        wait = start + at * options.pace - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        lag = max(lag, -wait)
        names = [digests.setdefault(each, hashlib.sha256(str(each).encode()).digest()) for each in ids]
        keys = [ObjectKey(name, "trace", 0) for name in names]
        task = adapter.submit_lookup_and_lock_task(keys, {})
        found = waited(
            adapter.get_lookup_and_lock_event_fd(), lambda task=task: adapter.query_lookup_and_lock_result(task)
        )
        if found is None:
            blocks += len(keys)
            continue
        run = next((place for place in range(len(keys)) if not found.test(place)), len(keys))
        loaded = run
        if run:
            into = [memory(None) for _ in range(run)]
            task = adapter.submit_load_task(keys[:run], into)
            bits = waited(adapter.get_load_event_fd(), lambda task=task: adapter.query_load_result(task))
            loaded = next((place for place in range(run) if bits is None or not bits.test(place)), run)
            for place in range(loaded):
                assert bytes(into[place].byte_array) == names[place] * (PAYLOAD // 32), "another chunk's bytes"
        adapter.submit_unlock([key for place, key in enumerate(keys) if found.test(place)])
        if loaded < len(keys):
            objects = [memory(name) for name in names[loaded:]]
            adapter.submit_store_task(keys[loaded:], objects)
            waited(adapter.get_store_event_fd(), lambda: adapter.pop_completed_store_tasks() or None)
            stored += len(objects)
        hits, blocks = hits + loaded, blocks + len(keys)
        if number % LOOK_EVERY == 0:
            peak = max(peak, now := used())
            if kind == "llmcache" and blocks:
                told = control.call(["KVCHUNK.INFO", NAMESPACE])
                taken = dict(zip(told[::2], told[1::2], strict=True))[b"bytes"]
                if now > bound * 0.97:
                    budget -= int(now - bound * 0.955)
                elif now < bound * 0.95 and taken > budget * 0.98:
                    budget += int((bound * 0.955 - now) * 0.5)
                control.call(["KVCHUNK.BUDGET", NAMESPACE, budget])
    adapter.close()
    return {
        "kind": kind,
        "hits": hits,
        "blocks": blocks,
        "stored": stored,
        "peak_mib": peak / (1 << 20),
        "lag_s": round(lag, 2),
    }


def main() -> None:
    options = argparse.ArgumentParser(description="hits at equal memory through LMCache's adapters")
    options.add_argument("trace")
    options.add_argument("--memory-mib", type=int, default=96)
    options.add_argument("--pace", type=float, default=0.12, help="seconds for each second of the trace")
    options.add_argument("--requests", type=int, default=1 << 30)
    options.add_argument("--json")
    options.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.drive:
        print(json.dumps(drive(chosen.drive[0], int(chosen.drive[1]), chosen)))
        return
    from harness.server import Fleet
    from lmcache_suites import HOME, PYTHON, ROOT, told

    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so"))
    fleet = Fleet(Path(shutil.which("redis-server") or "redis-server"), module, HOME / "run-trace")
    shutil.rmtree(HOME / "run-trace", ignore_errors=True)
    (HOME / "run-trace").mkdir(parents=True)
    rows = {}
    try:
        running = []
        for kind, policy in (("llmcache", "noeviction"), ("resp", "allkeys-lru"), ("resp", "allkeys-lfu")):
            bound = "0" if kind == "llmcache" else f"{chosen.memory_mib}mb"
            server = fleet.launch(save="", maxmemory=bound, maxmemory_policy=policy)
            command = [
                str(PYTHON),
                __file__,
                chosen.trace,
                "--memory-mib",
                str(chosen.memory_mib),
                "--pace",
                str(chosen.pace),
            ]
            command += ["--requests", str(chosen.requests), "--drive", kind, str(server.port)]
            process = subprocess.Popen(command, env=told(server.port, ""), stdout=subprocess.PIPE, text=True)
            running.append((f"{kind} {policy}", process))
        for name, process in running:
            said = process.communicate()[0]
            if process.returncode:
                raise SystemExit(f"{name} failed")
            rows[name] = json.loads(said.splitlines()[-1])
            print(rows[name], flush=True)
    finally:
        fleet.end()
    for name, row in rows.items():
        print(
            f"{name:22} {row['hits'] / row['blocks'] * 100:6.2f} % hits, at most {row['peak_mib']:.1f} MiB, late by {row['lag_s']} s"
        )
    best = max(row["hits"] for name, row in rows.items() if name.startswith("resp"))
    print(f"{rows['llmcache noeviction']['hits'] / best:.3f} x the better of resp's policies")
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
