"""packaging/monitoring on a real server: what the exporter says, each query of the dashboard answered by a real
Prometheus, the rules checked, and the same names from the Python client's collector."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from harness.server import free_port
from harness.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging" / "monitoring"
loaded = importlib.util.spec_from_file_location("monitoring_conftest", Path(__file__).with_name("conftest.py"))
conftest = importlib.util.module_from_spec(loaded)
loaded.loader.exec_module(conftest)
program = conftest.program
V = ("VALUES", 2, 1, 0.5)
ODD = b'sup:port "eu";x'


def act(server) -> None:
    with server.wire() as wire:
        for cache in ("faq", ODD):
            wire("LLMCACHE.CREATE", cache, "NEARMISSES", 5)
            wire("LLMCACHE.SETSEM", cache, "PROMPT", "p 1", "RESPONSE", "r", *V, "TOKENS", 9, "COST", "0.25", "LATENCY", 500)
            wire("LLMCACHE.GET", cache, "PROMPT", "p 1")
            wire("LLMCACHE.GETSEM", cache, *V)
            wire("LLMCACHE.GETSEM", cache, *V, "PROMPT", "p 2")
            wire("LLMCACHE.FETCH", cache, "PROMPT", "new")
        wire("KVCHUNK.PUT", "ns", "HASH", "a", "PAYLOAD", 1, "x")
        wire("KVCHUNK.MATCH", "ns", "HASHES", 1, "a")
        wire("RAG.ADD", "docs", "d", *V, "TEXT", "t")
        wire("RAG.SEARCH", "docs", *V)


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read().decode()


def answers(address: str) -> bool:
    try:
        get(address)
    except OSError:
        return False
    return True


@pytest.fixture
def run(tmp_path):
    """Runs programs until the test ends."""
    running = []

    def start(*command) -> None:
        log = (tmp_path / f"{len(running)}.log").open("wb")
        running.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=tmp_path))

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture
def exporter(server, run) -> str:
    port = free_port()
    run(program("prometheus-redis-exporter"), f"--redis.addr=redis://127.0.0.1:{server.port}",
        f"--script={FOLDER / 'llmcache.lua'}", f"--web.listen-address=127.0.0.1:{port}")  # fmt: skip
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the exporter answers", 60)
    return f"127.0.0.1:{port}"


def relabelled(key: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    name, *labels = key.split(";")
    return name, tuple(sorted(tuple(label.split("=", 1)) for label in labels))


def scripted(exporter: str) -> dict[tuple, float]:
    rows = re.findall(r'^redis_script_values\{key="((?:[^"\\]|\\.)*)"\} (\S+)$', get(f"http://{exporter}/metrics"), re.MULTILINE)
    return {relabelled(key.replace('\\"', '"').replace("\\\\", "\\")): float(value) for key, value in rows}


def test_the_exporter_tells_all_fields_of_info_and_each_cache(server, exporter):
    act(server)
    told = scripted(exporter)
    info = {name[9:]: value for name, value in server.info("llmcache").items() if value.isdigit()}
    sums = {name[16:].removesuffix("_total") for name, labels in told if name.startswith("llmcache_server_")}
    assert {name for name in info if not name.startswith("container_")} == sums
    for cache in ("faq", 'sup:port "eu"%3Bx'):
        of = lambda name, **labels: told[name, tuple(sorted({"cache": cache, **labels}.items()))]  # noqa: B023, E731
        assert of("llmcache_hits_total", tier="exact") == of("llmcache_hits_total", tier="semantic") == 1
        assert of("llmcache_misses_total", reason="guard") == 1 and of("llmcache_saved_seconds_total") == 1
        assert of("llmcache_saved_usd_total") == 0.5 and of("llmcache_threshold") == 0.9 and of("llmcache_leads_total") == 1
    assert told["llmcache_server_lookups_total", ()] == 8


def test_the_collector_of_the_client_tells_the_same(server, exporter):
    act(server)
    code = (
        "import json, redis, sys; from llmcache.metrics import LlmcacheCollector\n"
        f"c = LlmcacheCollector(redis.Redis(port={server.port}))\n"
        "print(json.dumps([[s.name, sorted(s.labels.items()), s.value] for f in c.collect() for s in f.samples]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "clients/python/src")})
    assert done.returncode == 0, done.stderr
    collected = {(name, tuple(map(tuple, labels))): value for name, labels, value in json.loads(done.stdout)}
    collected = {(name, tuple((k, v.replace(";", "%3B")) for k, v in labels)): value for (name, labels), value in collected.items()}
    told = scripted(exporter)
    assert set(collected) == set(told)
    # Of the command that asks.
    moving = {"llmcache_server_chunk_bytes_in_flight", "llmcache_server_last_command_keys", "llmcache_server_last_command_steps", "llmcache_server_last_command_reply_bytes"}
    assert {key: (collected[key], told[key]) for key in told if collected[key] != told[key] and key[0] not in moving} == {}


def queries() -> list[tuple[str, str]]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    instead = {"$__rate_interval": "5s", "$__range": "5s", "$instance": ".*", "$cache": ".*"}
    found = []
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in instead.items():
                text = text.replace(name, value)
            found.append((f"{panel['title']}: {target['legendFormat']}", text))
    return found


def test_every_query_of_the_dashboard_is_answered(server, exporter, run, tmp_path):
    config = (FOLDER / "prometheus.yml").read_text().replace("exporter:9121", exporter).replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(config)
    (tmp_path / "alerts.yml").write_text((FOLDER / "alerts.yml").read_text())
    act(server)
    port = free_port()
    run(program("prometheus"), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}")
    base = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(f"{base}/-/ready"), "Prometheus is ready", 60)

    def ask(query: str) -> list:
        return json.loads(get(f"{base}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))["data"]["result"]

    def values(query: str) -> list:
        act(server)
        return [row for row in ask(query) if row["value"][1] not in ("NaN", "")]

    asked = queries()
    assert len(asked) >= 30
    for title, query in asked:
        wait_until(lambda query=query: values(query), f"{title} is answered: {query}", 60, step=0.3)
    (rows,) = [json.loads(get(f"{base}/api/v1/label/cache/values"))["data"]]
    assert rows == ["faq", 'sup:port "eu"%3Bx']
    assert not ask('{key=~"llmcache.*"}') and not ask("redis_script_values")
    rules = json.loads(get(f"{base}/api/v1/rules"))["data"]["groups"][0]["rules"]
    assert len(rules) == 7 and {rule["health"] for rule in rules} <= {"ok", "unknown"}


@pytest.mark.parametrize("check", [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_accepts(check):
    done = subprocess.run([program("promtool"), *check], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_script_is_bounded_and_writes_nothing(server, exporter):
    with server.wire() as wire:
        for n in range(200):
            wire("LLMCACHE.CREATE", f"c{n}")
        wire("CONFIG", "RESETSTAT")
        scripted(exporter)
        stats = {name.lower(): int(re.search(r"calls=(\d+)", row)[1]) for name, row in server.info("commandstats").items()}
    per_scrape = stats["cmdstat_llmcache.stats"] + stats["cmdstat_llmcache.info"]
    assert per_scrape == 2 * 64
    assert "cmdstat_keys" not in stats and "cmdstat_scan" not in stats
