"""The examples, each run with its fake model."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

from fastapi.testclient import TestClient
from words import embed

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


def test_a_chain_of_langchain(server, r):
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    class Words(Embeddings):
        def embed_query(self, text):
            return embed(text)

        def embed_documents(self, texts):
            return [embed(text) for text in texts]

    model = FakeListChatModel(responses=["5 days.", "On Sundays.", "a third answer"])
    said = load("langchain_rag").main(f"redis://127.0.0.1:{server.port}", Words(), model)
    assert said == ["5 days.", "5 days.", "On Sundays."]
    assert r.exists("shop", "answers") == 2


def test_a_region_of_dogpile(server):
    assert load("dogpile_region").main(f"redis://127.0.0.1:{server.port}") == ({"a lamp costs 4.90 EUR"}, 1)


def test_every_example_is_run_here():
    tests = Path(__file__).read_text()
    assert [file.stem for file in EXAMPLES.glob("*.py") if f'load("{file.stem}")' not in tests] == []


def test_a_session_of_agents(server, r):
    from agents import set_tracing_disabled
    from agents.testing import ScriptedModel
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    def reply(text: str):
        part = ResponseOutputText(text=text, type="output_text", annotations=[], logprobs=[])
        return ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[part])

    set_tracing_disabled(True)
    model = ScriptedModel(steps=[[reply("Hello, Ada.")], [reply("Ada.")]])
    said = asyncio.run(load("openai_agents_session").main(f"redis://127.0.0.1:{server.port}", model))
    assert said == ["Hello, Ada.", "Ada.", "4 items are kept"]
    assert "Ada." in str(model.calls[1])
    assert 0 < r.ttl("agents:session:user-1") <= 86_400


def test_litellm(server, r):
    url = f"redis://127.0.0.1:{server.port}"
    said = asyncio.run(load("litellm_cache").main(url, embed, model="gpt-4o", mock_response="so", mock_delay=0.3))
    assert said == ["so"] * 6
    assert r.info("commandstats")["cmdstat_LLMCACHE.SETSEM"]["calls"] == 1


def test_llamaindex(server, r):
    from llama_index.core.embeddings import MockEmbedding

    class Words(MockEmbedding):
        def _get_text_embedding(self, text):
            return embed(text)

        def _get_query_embedding(self, query):
            return embed(query)

    said = load("llamaindex_rag").main(f"redis://127.0.0.1:{server.port}", Words(embed_dim=64))
    assert said == ["Refunds take up to 5 days.", "How long do refunds take?", "Refunds take up to 5 days."]
    assert r.exists("passages", "chat:user-1") == 2
