"""Questions by text: the module embeds them itself, beside clients that embed them and send vectors.

Owns: the servers and what is shown. What runs in Python beside other embedders is `embed_worker.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from contest import Contender, cpu_ratio, rates
from host import Host
from report import Report, check, number
from wire import Failure, Wire, encode, learn, percentile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODEL = ROOT / "models" / "all-MiniLM-L6-v2"
VENV = ROOT / ".servers" / "embed-packages"
TOKENS = (12, 64, 256)
# Of an engine: p50 in ms by length, texts a second of one thread.
TARGETS = {"vnni": ((1.2, 3.5, 14.0), 1_500), "avx2": ((3.0, 10.0, 40.0), 500)}
ENTRIES = 1_000
PEERS = {"onnxruntime": "redis-py, ONNX Runtime (1 thread)", "fastembed": "redis-py, fastembed (1 thread)"}

TEXT = f"""One client asks, question by question, for what was stored in other words: a new text each time, so that nothing is
remembered; {ENTRIES:,} entries. The module is sent the text (`GETSEM … PROMPT`); beside it the same Python embeds with a library
and sends the vector. All run all-MiniLM-L6-v2 in 8 bits, other embedders on one thread; the module's two threads (the
default) share a text of 8 tokens or more. "Embedding" is the library's time or the server's own (`embed_us`). Texts a second:
16 connections, each text on one thread. PING: one a millisecond beside that load. Exact hits: CPU time of the server for
caches with and without a model, in turns. Times on a busy machine are upper bounds."""


@dataclass(frozen=True)
class Plan:
    asked: int
    seconds: float


def run(server, module: Path, folder: Path, plan: Plan) -> Report | None:
    if not (MODEL / "model.safetensors").exists():
        print("bench: embed is left out: run make model first", flush=True)
        return None
    report = Report("Questions by text", TEXT)
    table = report.table("asked by", "tokens", "p50 ms", "p99 ms", "embedding, p50 ms")
    load = report.table("engine", "threads", "texts/s", "PING beside it: p50 us", "p99 us", "model and words, MB", "used_memory, MB")
    bare = bytes_without(server, module, folder)
    for engine, (wanted, least) in TARGETS.items():
        if not runs(engine):
            print(f"bench: this CPU has no {engine}", flush=True)
            continue
        for threads in (1, 2):
            options = {
                "llmcache.embed-models": f"minilm={MODEL}",
                "llmcache.embed-engine": engine,
                "llmcache.embed-threads": threads,
                "llmcache.embed-memo": 0,
                "llmcache.embed-timeout-ms": 60_000,
            }
            called = f"{engine}-{threads}"
            with Host(f"embed-{called}", server.path, folder / f"embed-{called}", module, **options) as host:
                grown = host.used_memory() - bare
                fill(host)
                for tokens, most in zip(TOKENS, wanted):
                    seen, own = ask(host, tokens, plan.asked)
                    name = f"GETSEM PROMPT, {engine}, threads: {threads}"
                    table.add(name, tokens, number(seen[0]), number(seen[1]), number(own))
                    report.figures[f"{called} {tokens}"] = {"p50_ms": seen[0], "p99_ms": seen[1], "embed_ms": own}
                    if threads == 2:
                        report.add_target(f"p50 by text, {engine}, {tokens} tokens", f"<= {most} ms", f"{seen[0]:.2f} ms", seen[0] <= most)
                rate, pings = crowd(host, plan.seconds)
                model = int(host.info("llmcache")["llmcache_model_bytes"])
                late = percentile(pings, 0.99)
                load.add(engine, threads, number(rate), number(percentile(pings, 0.5)), number(late), f"{model / 1e6:.1f}", f"{grown / 1e6:.1f}")
                if threads == 1:
                    report.add_target(f"texts a second a thread, {engine}", f">= {least:,}", f"{rate:,.0f}", rate >= least)
                    report.add_target(f"p99 of PING beside a thread under full load, {engine}", "< 1 ms", f"{late / 1e3:.2f} ms", late < 1_000)
                    report.add_target(f"model and words, {engine}", "<= 30 MB", f"{grown / 1e6:.1f} MB", grown <= 30e6)
                elif engine == "vnni" or not runs("vnni"):
                    compare_exact(host, report, plan)
                    peers(host, table, report, plan)
    sizes = report.table("module", "MB")
    sizes.add("libllmcache.so", f"{module.stat().st_size / 1e6:.2f}")
    return report


def runs(engine: str) -> bool:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    needed = {"vnni": {"avx512f", "avx512bw", "avx512_vnni", "fma"}, "avx2": {"avx2", "fma"}}
    return needed[engine] <= flags


def bytes_without(server, module: Path, folder: Path) -> int:
    with Host("embed-none", server.path, folder / "embed-none", module) as host:
        return host.used_memory()


def words(tokens: int, number: int) -> str:
    """A text of so many tokens, its two ends included, that no other number has."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    own = " ".join(letters[number // 26**place % 26] for place in range(4))
    return " ".join([own, *["money"] * (tokens - 6)])


def fill(host: Host) -> None:
    host("LLMCACHE.CREATE", "faq", "EMBED", "minilm")
    host("LLMCACHE.CREATE", "plain")
    for entry in range(ENTRIES):
        host("LLMCACHE.SETSEM", "faq", "PROMPT", f"question {words(12, entry)}", "RESPONSE", "an answer")
    for entry in range(ENTRIES):
        host("LLMCACHE.SET", "plain", "PROMPT", f"question {words(12, entry)}", "RESPONSE", "an answer")


def ask(host: Host, tokens: int, count: int) -> tuple[tuple[float, float], float]:
    """p50 and p99 of one client in ms, and the mean time of embedding."""
    count = min(count, 20_000 // tokens)
    before, taken = host.info("llmcache"), []
    with host.wire() as wire:
        for asked in range(count):
            text = words(tokens, 100_000 + tokens * 1_000 + asked)
            begin = time.perf_counter()
            reply = wire("LLMCACHE.GETSEM", "faq", "PROMPT", text)
            taken.append((time.perf_counter() - begin) * 1e3)
            check(not isinstance(reply, Failure), f"refused: {reply}")
    after = host.info("llmcache")
    done, us = (int(after[f"llmcache_{name}"]) - int(before[f"llmcache_{name}"]) for name in ("texts_embedded", "embed_us"))
    check(done == count, f"{done} of {count} texts were embedded")
    return (percentile(taken, 0.5), percentile(taken, 0.99)), us / done / 1e3


def crowd(host: Host, seconds: float) -> tuple[float, list[float]]:
    """Texts a second of many clients, and what PING takes beside them in us."""
    stop, gate = multiprocessing.Event(), multiprocessing.Queue()
    workers = [multiprocessing.Process(target=asks_on, args=(host.port, place, stop)) for place in range(2)]
    pinger = multiprocessing.Process(target=pings_on, args=(host.port, stop, gate))
    for worker in workers:
        worker.start()
    time.sleep(0.5)
    before = int(host.info("llmcache")["llmcache_texts_embedded"])
    begin = time.perf_counter()
    pinger.start()
    time.sleep(seconds)
    rate = (int(host.info("llmcache")["llmcache_texts_embedded"]) - before) / (time.perf_counter() - begin)
    stop.set()
    pings = gate.get(timeout=60)
    for process in (*workers, pinger):
        process.join()
    return rate, pings


def asks_on(port: int, place: int, stop) -> None:
    """Eight connections, each with one question on its way."""
    wires = [Wire(port, timeout=60) for _ in range(8)]
    asked = 0

    def send(wire: Wire) -> None:
        nonlocal asked
        asked += 1
        wire.socket.sendall(encode(["LLMCACHE.GETSEM", "faq", "PROMPT", words(12, 200_000 + place * 100_000 + asked)]))

    for wire in wires:
        send(wire)
    while not stop.is_set():
        for wire in wires:
            wire.read()
            send(wire)
    for wire in wires:
        wire.close()


def pings_on(port: int, stop, gate) -> None:
    taken = []
    with Wire(port, timeout=60) as wire:
        while not stop.is_set():
            begin = time.perf_counter()
            wire("PING")
            taken.append((time.perf_counter() - begin) * 1e6)
            time.sleep(0.001)
    gate.put(taken)


def compare_exact(host: Host, report: Report, plan: Plan) -> None:
    batches = {}
    for name in ("faq", "plain"):
        commands = [encode(["LLMCACHE.GETSEM", name, "PROMPT", f"question {words(12, entry)}"]) for entry in range(min(200, ENTRIES))]
        with host.wire() as wire:
            batches[name] = learn(wire, commands, 16)
    with_model, without = (Contender(name, host, batches[name], 4) for name in ("faq", "plain"))
    rates([with_model, without], 5, plan.seconds / 4)
    ratio = cpu_ratio(without, with_model)
    report.table("exact hits", "CPU of the server").add("cache with a model over one without", str(ratio))
    report.add_target("CPU of an exact hit of a cache with a model", "<= 1.01 of one without", f"{ratio.median:.3f}", ratio.median <= 1.01)


def peers(host: Host, table, report: Report, plan: Plan) -> None:
    python = provide()
    if python is None:
        return
    for name, called in PEERS.items():
        texts = {str(tokens): [words(tokens, 500_000 + number) for number in range(min(plan.asked, 10_000 // tokens))] for tokens in TOKENS}
        command = [str(python), str(HERE / "embed_worker.py"), name, str(host.port), str(MODEL)]
        done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True)
        check(done.returncode == 0, f"{name} failed: {done.stderr[-2_000:]}")
        for tokens, seen in json.loads(done.stdout.splitlines()[-1]).items():
            table.add(called, tokens, number(seen["p50"]), number(seen["p99"]), number(seen["embed"]))
            report.figures[f"{name} {tokens}"] = seen


def provide() -> Path | None:
    """The Python of the other embedders, installed once; none where they cannot be had."""
    wanted, python, stamp = (HERE / "embed_packages.txt"), VENV / "bin" / "python", VENV / "installed"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return python
    venv.create(VENV, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"bench: the other embedders cannot be had: {done.stderr[-500:]}", file=sys.stderr, flush=True)
        return None
    stamp.write_text(wanted.read_text())
    return python
