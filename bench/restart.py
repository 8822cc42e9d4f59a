"""How long a server takes to load a cache with its graph, beside the same bytes as plain hashes."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vectors
from contest import spread
from exact import PROMPT_BYTES, RESPONSE_BYTES, prompt, response
from graph_peers import Ours
from host import Host
from report import Report, check, number
from semantic import store

TARGET = 2.0
LOADED = re.compile(r"DB loaded from disk: ([\d.]+) seconds")

TEXT = f"""Entries of a prompt of {PROMPT_BYTES} and a response of {RESPONSE_BYTES} bytes and a vector of 384 dimensions
as F16, `INDEX HNSW`, beside one hash an entry of the same three values. Both are written with `SAVE`; the server is
ended and started again on the file, in turns. The time is what its log says loading took; the lowest, median and
highest of the ratios are those of the rounds. That `LLMCACHE.INFO` says `tail 0` and as many `linked` after each start,
and that the same query is answered alike, is asserted."""


@dataclass(frozen=True)
class Plan:
    entries: int
    rounds: int


@dataclass
class Saved:
    """A server that was ended, and can be started on what it saved."""

    name: str
    binary: Path
    folder: Path
    module: Path | None
    loaded_s: list[float]

    def start(self) -> Host:
        return Host(self.name, self.binary, self.folder, self.module)

    def note_load(self) -> None:
        log = (self.folder / "server.log").read_text(errors="replace")
        self.loaded_s.append(float(LOADED.findall(log)[-1]))

    def file_bytes(self) -> int:
        return (self.folder / "dump.rdb").stat().st_size


def run(server, module: Path, folder: Path, base: np.ndarray, plan: Plan) -> Report:
    report = Report("Restart", TEXT)
    table = report.table("entries", "what", "loaded in, ms", "RDB, B an entry", "the module over hashes")
    rows = vectors.grown(base, plan.entries)
    ours = Saved("ours", server.path, folder / "restart-ours", module, [])
    plain = Saved("plain", server.path, folder / "restart-plain", None, [])
    before = fill_ours(ours, rows)
    fill_plain(plain, rows)
    for _ in range(plan.rounds):
        with ours.start() as host:
            ours.note_load()
            check(state(host, rows) == before, f"after the restart: {state(host, rows)[0]}, before: {before[0]}")
        with plain.start() as host:
            plain.note_load()
            check(host("DBSIZE") == plan.entries, "all hashes are there again")
    ratio = spread([a / b for a, b in zip(ours.loaded_s, plain.loaded_s)])
    for one, shown in ((ours, ratio), (plain, "")):
        what = "llmcache with its graph" if one is ours else "hashes"
        took = statistics.median(one.loaded_s)
        table.add(f"{plan.entries:,}", what, number(took * 1e3), number(one.file_bytes() / plan.entries), shown)
        report.figures[f"{plan.entries}/{what}"] = {
            "loaded_ms": round(took * 1e3, 1), "rdb_bytes_per_entry": round(one.file_bytes() / plan.entries)
        }
    report.figures[f"{plan.entries}/ratio"] = ratio.raw()
    report.add_target(
        f"load of {plan.entries:,} entries and graph", f"<= {TARGET:g} x as hashes", str(ratio), ratio.median <= TARGET
    )
    return report


def fill_ours(saved: Saved, rows: np.ndarray) -> tuple:
    with saved.start() as host:
        cache = Ours("llmcache", host)
        cache.create(rows.shape[1])
        store(host, [
            ["LLMCACHE.SETSEM", "faq", "PROMPT", prompt(n), "RESPONSE", response(n), "FP32", vectors.blob(v)]
            for n, v in enumerate(rows)
        ])
        cache.settle()
        host("SAVE")
        return state(host, rows)


def fill_plain(saved: Saved, rows: np.ndarray) -> None:
    with saved.start() as host:
        store(host, [
            ["HSET", f"entry:{n:032d}", "prompt", prompt(n), "response", response(n), "vector", v.astype("<f2").tobytes()]
            for n, v in enumerate(rows)
        ])
        host("SAVE")


def state(host: Host, rows: np.ndarray) -> tuple[list[int], list]:
    """Entries, linked and waiting ones; what some queries answer."""
    cache = Ours("llmcache", host)
    info = cache.info()
    answers = [host.control.flush([cache.find(vectors.blob(v), 40)]) for v in rows[: 500 : 25]]
    check(info["linked"] == len(rows) and info["tail"] == 0, f"{info['linked']} are linked, {info['tail']} wait")
    return [info["entries"], info["linked"], info["tail"]], answers
