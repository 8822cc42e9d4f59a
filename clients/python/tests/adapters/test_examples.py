"""The examples, each run with its fake model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi.testclient import TestClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_service(server, r, monkeypatch):
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{server.port}")
    with TestClient(load("fastapi_app").app) as web:
        for _ in range(2):
            assert web.get("/answer", params={"question": "what"}).json() == {"answer": "You asked: what"}
        assert r.info("commandstats")["cmdstat_LLMCACHE.SET"]["calls"] == 1
        id = web.post("/chat/7", params={"question": "hello there"}).json()["id"]
        assert web.get(f"/chat/7/{id}").text == "You asked: hello there "
        assert web.get(f"/chat/7/{id}", params={"offset": 4}).text == "asked: hello there "
        assert [m["role"] for m in web.get("/chat/7").json()] == ["user", "assistant"]
        assert web.post(f"/chat/7/{id}/stop").json() == {"stopped": False}
        first = web.post("/embeddings", json=["a", "b"]).json()
        assert len(first) == 2
        assert r.info("commandstats")["cmdstat_EMBCACHE.MSET"]["calls"] == 1


def test_the_agent(server):
    said = load("langgraph_agent").main(f"redis://127.0.0.1:{server.port}")
    assert said == ["Paris.", "Paris.", "Rome."]
