"""Each adapter through its methods for threads and through those for asyncio: the same outcome, and the same in Redis."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import threading
import time

import litellm
import pytest
import redis
import redis.asyncio
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation
from langgraph.checkpoint.base import empty_checkpoint
from words import embed

from llmcache import F
from llmcache.integrations.dogpile import LlmcacheBackend, LlmcacheMutex
from llmcache.integrations.langchain import (
    LlmcacheCache,
    LlmcacheChatMessageHistory,
    LlmcacheEmbeddings,
    LlmcacheVectorStore,
)
from llmcache.integrations.langgraph import LlmcacheNodeCache, LlmcacheSaver
from llmcache.integrations.litellm import LlmcacheLiteLLM
from llmcache.integrations.llamaindex import LlmcacheChatStore, LlmcacheDBChatStore, condition
from llmcache.integrations.llamaindex import LlmcacheVectorStore as LlamaVectorStore
from llmcache.integrations.openai_agents import LlmcacheSession


class Way:
    """Calls a method as it is, or the one of the other name in one event loop."""

    def __init__(self, asynchronous: bool, prefix: str = "a"):
        self.asynchronous, self.prefix = asynchronous, prefix
        self.runner = asyncio.Runner() if asynchronous else None

    def __call__(self, thing, name: str, *args, prefix: str | None = None, **kwargs):
        if self.runner is None:
            outcome = getattr(thing, name)(*args, **kwargs)
            return list(outcome) if inspect.isgenerator(outcome) else outcome
        outcome = getattr(thing, (self.prefix if prefix is None else prefix) + name)(*args, **kwargs)
        if inspect.isasyncgen(outcome):
            return self.runner.run(self._all(outcome))
        return self.runner.run(outcome)

    @staticmethod
    async def _all(generator):
        return [one async for one in generator]


@pytest.fixture(params=["threads", "asyncio"])
def way(request):
    way = Way(request.param == "asyncio")
    yield way
    if way.runner is not None:
        way.runner.close()


class Words:
    """Embeddings that count what they are asked for."""

    def __init__(self):
        self.asked: list[str] = []

    def embed_documents(self, texts):
        self.asked += texts
        return [embed(text) for text in texts]

    def embed_query(self, text):
        self.asked.append(text)
        return embed(text)

    async def aembed_documents(self, texts):
        return self.embed_documents(texts)

    async def aembed_query(self, text):
        return self.embed_query(text)


def calls(r, command: str) -> int:
    return r.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


# LangChain.


def chat(*messages) -> str:
    from langchain_core.load import dumps

    return dumps(list(messages))


@pytest.mark.parametrize("by_meaning", [False, True])
def test_langchain_cache(r, way, by_meaning):
    cache = LlmcacheCache(r, embeddings=Words() if by_meaning else None, threshold=0.6, scope="eu", ttl=100)
    answer = [ChatGeneration(message=AIMessage("thirty days"))]
    prompt = chat(HumanMessage("how do I get my money back"))
    assert way(cache, "lookup", prompt, "gpt") is None
    way(cache, "update", prompt, "gpt", answer)
    assert way(cache, "lookup", prompt, "gpt")[0].message.content == "thirty days"
    assert way(cache, "lookup", prompt, "other model") is None
    near = way(cache, "lookup", chat(HumanMessage("how can I get my money back")), "gpt")
    assert (near is not None) == by_meaning
    # What no user said last has no meaning to look for: only the very same is found.
    said = chat(HumanMessage("a"), AIMessage("b"))
    way(cache, "update", said, "gpt", answer)
    assert way(cache, "lookup", said, "gpt") is not None
    plain = "a prompt that is text"
    way(cache, "update", plain, "gpt", [Generation(text="plain")])
    assert way(cache, "lookup", plain, "gpt")[0].text == "plain"
    way(cache, "clear")
    assert way(cache, "lookup", prompt, "gpt") is None


def test_langchain_embeddings_are_computed_once(r, way):
    words = Words()
    cached = LlmcacheEmbeddings(r, words, model="m", ttl=100)
    first = way(cached, "embed_documents", ["one", "two"])
    again = way(cached, "embed_documents", ["two", "one", "three"])
    assert words.asked == ["one", "two", "three"]
    assert all(math.isclose(a, b, abs_tol=0.02) for a, b in zip(first[0], again[1], strict=True))
    # A query is another embedding than the document of the same text.
    way(cached, "embed_query", "one")
    way(cached, "embed_query", "one")
    assert words.asked == ["one", "two", "three", "one"]


def test_langchain_vector_store(r, way):
    store = LlmcacheVectorStore(r, embeddings=Words())
    assert store.embeddings is not None
    texts = ["returns are free", "returns cost money", "parcels leave today"]
    ids = way(store, "add_texts", texts, [{"year": 2026}, {"year": 2019}, {}], ids=["a", "b", None], ttl=60)
    assert ids[:2] == ["a", "b"]
    assert len(ids[2]) == 32
    assert [d.page_content for d in way(store, "get_by_ids", ["b", "none", "a"])] == [texts[1], texts[0]]
    assert [d.id for d in way(store, "similarity_search", "returns free", 1)] == ["a"]
    scored = way(store, "similarity_search_with_score", "returns are free", 2, score_threshold=0.99)
    assert [(d.id, round(score, 2)) for d, score in scored] == [("a", 1.0)]
    vector = embed("returns cost money")
    assert way(store, "similarity_search_by_vector", vector, 1)[0].id == "b"
    assert len(way(store, "max_marginal_relevance_search", "returns", 2, lambda_mult=0.1)) == 2
    assert len(way(store, "max_marginal_relevance_search_by_vector", vector, 2)) == 2
    assert way(store, "similarity_search", "returns", 3, filter={"year": 2019})[0].id == "b"
    with pytest.raises(ValueError, match="empty filter"):
        way(store, "similarity_search", "returns", 3, filter={})
    assert way(store, "delete", ["a", "none"]) is True
    assert way(store, "get_by_ids", ["a"]) == []
    assert way(store, "delete") is True
    assert not r.exists("documents")


def test_langchain_history(r, way):
    history = LlmcacheChatMessageHistory(r, "7", max_messages=3)
    get = (lambda: way.runner.run(history.aget_messages())) if way.asynchronous else (lambda: history.messages)
    way(history, "add_messages", [])
    assert get() == []
    way(history, "add_messages", [HumanMessage(str(n)) for n in range(5)])
    assert [m.content for m in get()] == ["2", "3", "4"]
    windowed = LlmcacheChatMessageHistory(r, "7", window={"last": 1})
    assert [
        m.content for m in (way.runner.run(windowed.aget_messages()) if way.asynchronous else windowed.messages)
    ] == ["4"]
    way(history, "clear")
    assert get() == []


# LangGraph.


def test_langgraph_saver(r, way):
    saver = LlmcacheSaver(r, ttl=500)
    way(saver, "setup")
    config, made = {"configurable": {"thread_id": "t/1", "checkpoint_ns": ""}}, []
    for step in range(3):
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"n": step}
        config = way(saver, "put", config, checkpoint, {"step": step, "run_id": f"run{step}"}, {})
        made.append(config["configurable"]["checkpoint_id"])
        way(saver, "put_writes", config, [("n", step), ("m", "x")], f"task{step}")
    thread = {"configurable": {"thread_id": "t/1"}}
    newest = way(saver, "get_tuple", thread)
    assert newest.checkpoint["channel_values"] == {"n": 2}
    assert newest.pending_writes == [("task2", "n", 2), ("task2", "m", "x")]
    assert newest.parent_config["configurable"]["checkpoint_id"] == made[1]
    old = way(saver, "get_tuple", {"configurable": {"thread_id": "t/1", "checkpoint_id": made[0]}})
    assert old.metadata["step"] == 0
    assert way(saver, "get_tuple", {"configurable": {"thread_id": "t/1", "checkpoint_id": "none"}}) is None
    assert way(saver, "get_tuple", {"configurable": {"thread_id": "none"}}) is None
    listed = way(saver, "list", thread)
    assert [t.config["configurable"]["checkpoint_id"] for t in listed] == made[::-1]
    assert [t.metadata["step"] for t in way(saver, "list", thread, limit=1)] == [2]
    assert [t.metadata["step"] for t in way(saver, "list", None, filter={"step": 1})] == [1]
    assert [t.metadata["step"] for t in way(saver, "list", thread, before=config)] == [1, 0]
    way(saver, "copy_thread", "t/1", "t2")
    copied = way(saver, "get_tuple", {"configurable": {"thread_id": "t2"}})
    assert (copied.checkpoint["id"], copied.pending_writes) == (made[2], newest.pending_writes)
    way(saver, "delete_for_runs", ["run1"])
    assert [t.metadata["step"] for t in way(saver, "list", thread)] == [2, 0]
    way(saver, "prune", ["t2"])
    assert [t.metadata["step"] for t in way(saver, "list", {"configurable": {"thread_id": "t2"}})] == [2]
    way(saver, "prune", ["t2"], strategy="delete")
    way(saver, "delete_thread", "t/1")
    assert way(saver, "list", None) == []
    assert r.dbsize() == 0
    assert saver.get_next_version(saver.get_next_version(None, None), None).startswith("0" * 31 + "2.")


def test_a_thread_with_more_writes_than_are_read_along(r, way):
    saver = LlmcacheSaver(r)
    config = way(saver, "put", {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {})
    for task in range(40):
        way(saver, "put_writes", config, [("c", task)], f"task{task:02}")
    found = way(saver, "get_tuple", {"configurable": {"thread_id": "t"}})
    assert [value for _, _, value in found.pending_writes] == list(range(40))


def test_more_checkpoints_than_a_page(r, way):
    saver = LlmcacheSaver(r)
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": "sub"}}
    for step in range(230):
        config = way(saver, "put", config, empty_checkpoint(), {"step": step}, {})
    assert [t.metadata["step"] for t in way(saver, "list", {"configurable": {"thread_id": "t"}})] == list(
        range(229, -1, -1)
    )
    way(saver, "copy_thread", "t", "u")
    assert len(way(saver, "list", {"configurable": {"thread_id": "u", "checkpoint_ns": "sub"}})) == 230


def test_langgraph_node_cache(r, way):
    cache = LlmcacheNodeCache(r)
    key, other = (("a", "b"), "k"), (("c",), "k")
    assert way(cache, "get", []) == {}
    assert way(cache, "get", [key]) == {}
    way(cache, "set", {key: ({"x": 1}, None), other: ([2], 60)})
    assert way(cache, "get", [key, other, (("c",), "none")]) == {key: {"x": 1}, other: [2]}
    way(cache, "clear", [("a", "b")])
    assert way(cache, "get", [key, other]) == {other: [2]}
    way(cache, "clear")
    assert way(cache, "get", [other]) == {}
    way(LlmcacheNodeCache(r, name="absent"), "clear")


# LlamaIndex.


def message(text: str):
    from llama_index.core.base.llms.types import ChatMessage

    return ChatMessage(role="user", content=text)


def texts(messages) -> list[str]:
    return [m.content for m in messages or ()]


def test_llamaindex_chat_store(r, way):
    store = LlmcacheChatStore(r, ttl=100)
    assert store.class_name() == "LlmcacheChatStore"
    add = "add_message" if not way.asynchronous else "async_add_message"

    def added(*args):
        return way(store, add, *args, prefix="")

    way(store, "set_messages", "k", [message("a"), message("c")])
    added("k", message("d"))
    added("k", message("b"), 1)
    assert texts(way(store, "get_messages", "k")) == ["a", "b", "c", "d"]
    assert 0 < r.ttl("chat:k") <= 100
    # As LlamaIndex's own store over Redis: an index out of range deletes nothing, a negative one included.
    assert way(store, "delete_message", "k", -1) is None
    assert way(store, "delete_message", "k", 7) is None
    assert way(store, "delete_message", "k", 3).content == "d"
    assert way(store, "delete_last_message", "k").content == "c"
    assert way(store, "get_keys") == ["k"]
    assert texts(way(store, "delete_messages", "k")) == ["a", "b"]
    assert way(store, "delete_messages", "k") is None
    assert way(store, "delete_last_message", "k") is None
    way(store, "set_messages", "k", [message("a")])
    way(store, "set_messages", "k", [])
    assert way(store, "get_keys") == []


def test_llamaindex_memory(r):
    from llama_index.core.storage.chat_store.base_db import MessageStatus

    store = LlmcacheDBChatStore(r, ttl=100)
    assert store.class_name() == "LlmcacheDBChatStore"

    async def main():
        await store.add_message("k", message("0"))
        await store.add_messages("k", [message(str(n)) for n in range(1, 6)])
        await store.add_messages("k", [])
        assert texts(await store.get_messages("k", limit=2, offset=1)) == ["1", "2"]
        assert texts(await store.archive_oldest_messages("k", 2)) == ["0", "1"]
        assert await store.archive_oldest_messages("k", 0) == []
        assert texts(await store.get_messages("k", MessageStatus.ARCHIVED)) == ["0", "1"]
        assert (await store.delete_message("k", 0)).content == "2"
        assert await store.delete_message("k", 9) is None
        assert texts(await store.delete_oldest_messages("k", 1)) == ["3"]
        assert await store.delete_oldest_messages("k", 0) == []
        await store.set_messages("k", [message("new")])
        assert texts(await store.get_messages("k", None)) == ["new", "0", "1"]
        assert await store.count_messages("k", None) == 3
        assert await store.get_keys() == ["k"]
        await store.set_messages("k", [])
        await store.delete_messages("k")
        return await store.get_keys()

    assert asyncio.run(main()) == []
    assert r.dbsize() == 0


def test_llamaindex_vector_store(r, way):
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.core.vector_stores.types import (
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
    )

    store = LlamaVectorStore(r)
    assert store.class_name() == "LlmcacheVectorStore"
    assert store.client is r
    made = [TextNode(id_=f"n{n}", text=f"text {n}", embedding=[1.0, n], metadata={"n": n}) for n in range(6)]
    for node in made[:2]:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="doc")
    add = "async_add" if way.asynchronous else "add"
    assert way(store, add, made, prefix="") == [f"n{n}" for n in range(6)]

    def query(**more):
        return way(store, "query", VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=9, **more)).ids

    assert query() == [f"n{n}" for n in range(6)]
    assert query(node_ids=["n1", "n4"]) == ["n1", "n4"]
    assert query(doc_ids=["doc"], node_ids=["n1", "n4"]) == ["n1"]
    assert set(query(mode=VectorStoreQueryMode.MMR, mmr_threshold=0.2)) == {f"n{n}" for n in range(6)}
    with pytest.raises(NotImplementedError, match="mode"):
        query(mode=VectorStoreQueryMode.SPARSE)
    with pytest.raises(ValueError, match="embedding"):
        way(store, "query", VectorStoreQuery())
    way(store, "delete", "doc")
    assert query() == ["n2", "n3", "n4", "n5"]
    some = MetadataFilters(filters=[MetadataFilter(key="n", value=3)])
    way(store, "delete_nodes", filters=some)
    way(store, "delete_nodes", ["n2"])
    with pytest.raises(ValueError, match="node_ids or filters"):
        way(store, "delete_nodes", ["n2"], some)
    assert [n.text for n in way(store, "get_nodes", ["n4", "none"])] == ["text 4"]
    assert sorted(n.node_id for n in way(store, "get_nodes")) == ["n4", "n5"]
    way(store, "clear")
    assert query() == []


def test_llamaindex_filters_say_what_they_mean(r):
    from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

    rows = {
        "a": {"n": 1, "tags": ["x"]},
        "b": {"n": 2, "tags": ["x", "y"]},
        "c": {"n": 3, "tags": []},
        "d": {"tags": ["y"]},
    }
    from llmcache import Document, DocumentIndex

    docs = DocumentIndex(r, "docs")
    docs.add([Document(id, "t", meta=meta) for id, meta in rows.items()], embed=False)

    def found(*parts, how=FilterCondition.AND):
        filters = [
            p if isinstance(p, MetadataFilters) else MetadataFilter(key=p[0], operator=p[1], value=p[2]) for p in parts
        ]
        return "".join(sorted(docs.ids(filter=condition(MetadataFilters(filters=filters, condition=how)))))

    is_ = FilterOperator
    assert found(("n", is_.EQ, 2)) == "b"
    assert found(("n", is_.GT, 1)) == "bc"
    assert found(("n", is_.LT, 2)) == "a"
    assert found(("n", is_.GTE, 2), ("n", is_.LTE, 2)) == "b"
    assert found(("n", is_.IN, [1, 3])) == "ac"
    assert set("ac") <= set(found(("n", is_.NE, 2)))
    assert set("b") <= set(found(("n", is_.NIN, [1, 3])))
    assert found(("tags", is_.CONTAINS, "y")) == "bd"
    assert found(("tags", is_.ANY, ["x", "y"])) == "abd"
    assert found(("tags", is_.ALL, ["x", "y"])) == "b"
    assert found(("n", is_.EQ, 1), ("tags", is_.CONTAINS, "y"), how=FilterCondition.OR) == "abd"
    inner = MetadataFilters(
        filters=[MetadataFilter(key="n", value=1), MetadataFilter(key="n", value=2)], condition=FilterCondition.OR
    )
    assert found(inner, ("tags", is_.CONTAINS, "y")) == "b"
    assert "b" not in found(("tags", is_.CONTAINS, "y"), how=FilterCondition.NOT)
    assert condition(MetadataFilters(filters=[])) is None
    with pytest.raises(NotImplementedError, match="filter"):
        found(("n", is_.IS_EMPTY, None))


# LiteLLM.


@pytest.fixture
def lite(r):
    return LlmcacheLiteLLM(r, embed=embed, threshold=0.6, wait=5.0, lease=5.0)


def question(text: str, **more) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def test_litellm_looks_up_and_stores(r, lite, way):
    way.prefix = "async_"
    metadata: dict = {}
    assert way(lite, "get_cache", "k1", **question("how do I get my money back")) is None
    way(lite, "set_cache", "k1", {"a": 1}, **question("how do I get my money back", ttl=50))
    asked = question("how can I get my money back", metadata=metadata)
    assert way(lite, "get_cache", "k2", **asked) == {"a": 1}
    assert 0.6 < metadata["semantic-similarity"] < 1
    assert way(lite, "get_cache", "k2", **question("how can I get my money back", model="other")) is None
    # Other keys than questions of a user are exact.
    assert way(lite, "get_cache", "plain") is None
    way(lite, "set_cache", "plain", [1, 2])
    assert way(lite, "get_cache", "plain") == [1, 2]
    tool = {"messages": [{"role": "tool", "content": "x"}]}
    assert way(lite, "get_cache", "tool", **tool) is None
    assert way(lite, "set_cache", "plain", 3) is None


def test_litellm_tells_who_waits_that_the_model_failed(r, lite):
    asked = question("will it fail")
    assert lite.get_cache("k", **asked) is None
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(LlmcacheLiteLLM(r, wait=20.0, lease=5.0).get_cache("k")))
    other = LlmcacheLiteLLM(r, wait=20.0)
    assert other.get_cache("k") is None
    waiting.start()
    while r.info("clients")["blocked_clients"] == 0:
        time.sleep(0.01)
    begun = time.monotonic()
    other.failure({"cache_key": "k", "exception": "no quota"}, None, None, None)
    waiting.join(20)
    assert heard == [None]
    assert time.monotonic() - begun < 15
    # Nothing is held, so nothing is given up.
    other.failure({"cache_key": "k"}, None, None, None)
    other.failure({}, None, None, None)


def test_litellm_drops_an_answer_that_comes_too_late(r, way, caplog):
    way.prefix = "async_"
    lite = LlmcacheLiteLLM(r, lease=5.0)
    assert way(lite, "get_cache", "k") is None
    r.execute_command("LLMCACHE.INVALIDATE", "litellm", "ALL")
    with caplog.at_level("INFO", logger="llmcache"):
        way(lite, "set_cache", "k", 1)
    assert "too late" in caplog.text
    assert way(lite, "get_cache", "k") is None


def test_litellm_writes_many_and_tests_its_connection(server, r):
    lite = LlmcacheLiteLLM(redis.asyncio.Redis(port=server.port))

    async def main():
        await lite.async_set_cache_pipeline([("a", 1), ("b", {"c": 2})], ttl=30)
        await lite.batch_cache_write("d", 4)
        found = [await lite.async_get_cache(key) for key in ("a", "b", "d")]
        good = await lite.test_connection()
        away = LlmcacheLiteLLM(redis.asyncio.Redis(port=1, retry=None))
        bad = await away.test_connection()
        await lite.disconnect()
        return found, good["status"], bad["status"]

    assert asyncio.run(main()) == ([1, {"c": 2}, 4], "success", "failed")
    assert isinstance(litellm.Cache, type)


# OpenAI Agents.


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("decode", [False, True])
def test_an_agents_session(server, r, metadata, decode):
    async def main():
        client = redis.asyncio.Redis(port=server.port, decode_responses=decode)
        session = LlmcacheSession("u", client, ttl=60, metadata=metadata, session_settings={"limit": 3})
        await session.add_items([])
        await session.add_items([{"role": "user", "content": str(n)} for n in range(5)])
        assert [i["content"] for i in await session.get_items()] == ["2", "3", "4"]
        assert [i["content"] for i in await session.get_items(9)] == ["0", "1", "2", "3", "4"]
        assert await session.get_items(0) == []
        key = "agents:session:u"
        if metadata:
            told = {k.decode(): v for k, v in r.hgetall(key).items()}
            assert told["session_id"] == b"u"
            assert abs(int(told["created_at"]) - time.time()) < 60
            assert 0 < r.ttl(key) <= 60
            r.hset(key, "created_at", "1")
            await session.add_items([{"type": "reasoning", "id": "r1"}])
            assert r.hget(key, "created_at") == b"1"
        else:
            await session.add_items([{"type": "reasoning", "id": "r1"}])
        assert (await session.pop_item()) == {"type": "reasoning", "id": "r1"}
        # What somebody else wrote is passed over.
        place = f"{key}:messages" if metadata else key
        r.execute_command("SESSION.APPEND", place, "MSG", "user", "no json")
        assert [i["content"] for i in await session.get_items(2)] == ["3", "4"]
        assert (await session.pop_item()) == {"role": "user", "content": "4"}
        assert await session._atomic_replace_items([{"role": "user", "content": "summary"}])
        assert [i["content"] for i in await session.get_items()] == ["summary"]
        assert await session._atomic_replace_items([])
        assert await session.get_items() == []
        await session.clear_session()
        assert r.dbsize() == 0
        assert await session.ping()
        await session.close()
        with pytest.raises(RuntimeError, match="closed"):
            await session.add_items([])
        assert await client.ping()
        await client.aclose()
        own = LlmcacheSession.from_url("v", url=f"redis://127.0.0.1:{server.port}", redis_kwargs={"protocol": 3})
        await own.add_items([{"role": "user", "content": "x"}])
        await own.close()
        away = LlmcacheSession.from_url("v", url="redis://127.0.0.1:1", redis_kwargs={"retry": None})
        assert not await away.ping()
        await away.close()

    asyncio.run(main())


@pytest.mark.parametrize("what", ["append", "clear", "pop"])
def test_a_write_that_is_cancelled_is_waited_for(server, r, what):
    """The server is held up while a write is on its way: who cancels it hears so after its outcome is known."""

    async def main():
        client = redis.asyncio.Redis(port=server.port)
        session = LlmcacheSession("u", client)
        await session.add_items([{"role": "user", "content": "a"}])
        r.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        work = {
            "append": lambda: session.add_items([{"role": "user", "content": "b"}]),
            "clear": session.clear_session,
            "pop": session.pop_item,
        }[what]
        task = asyncio.create_task(work())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        task.cancel()
        await asyncio.to_thread(r.execute_command, "CLIENT", "UNPAUSE")
        with pytest.raises(asyncio.CancelledError):
            await task
        left = [i["content"] for i in await session.get_items()]
        await client.aclose()
        return left

    assert asyncio.run(main()) == {"append": ["a", "b"], "clear": [], "pop": []}[what]


def test_metadata_leaves_another_sessions_key_alone(server, r):
    """The counter of `u` has the name of the session `u:counter`."""

    async def main():
        client = redis.asyncio.Redis(port=server.port)
        one, two = (LlmcacheSession(name, client, metadata=True) for name in ("u", "u:counter"))
        await one.add_items([{"role": "user", "content": "1"}])
        await two.add_items([{"role": "user", "content": "2"}])
        assert await one._atomic_replace_items([{"role": "user", "content": "3"}])
        await one.clear_session()
        assert [i["content"] for i in await two.get_items()] == ["2"]
        assert r.hexists("agents:session:u:counter", "created_at")
        await client.aclose()

    asyncio.run(main())


# dogpile.


def test_a_dogpile_region(r):
    region = make_region().configure("llmcache", arguments={"client": r, "name": "pages", "expiration_time": 100})
    made = []

    @region.cache_on_arguments()
    def page(n: int) -> str:
        made.append(n)
        return f"page {n}"

    assert [page(1), page(1), page(2)] == ["page 1", "page 1", "page 2"]
    assert made == [1, 2]
    region.set_multi({"a": 1, "b": [2]})
    assert region.get_multi(["a", "none", "b"]) == [1, NO_VALUE, [2]]
    region.delete("a")
    region.delete_multi(["b", "none"])
    region.delete_multi([])
    assert region.get_multi(["a", "b"]) == [NO_VALUE, NO_VALUE]
    backend = region.backend
    assert isinstance(backend, LlmcacheBackend)
    assert backend.has_lock_timeout()
    assert isinstance(backend.get_mutex("k"), LlmcacheMutex)
    assert LlmcacheBackend({"client": r, "distributed_lock": False}).get_mutex("k") is None
    ttl = min(r.ttl(key) for key in r.scan_iter("{pages}:*"))
    assert 0 < ttl <= 100


def test_a_dogpile_stampede_makes_one_value(server):
    made = []

    def create():
        made.append(1)
        time.sleep(0.2)
        return "value"

    def ask():
        with redis.Redis(port=server.port) as client:
            region = make_region().configure("llmcache", expiration_time=60, arguments={"client": client})
            got.append(region.get_or_create("k", create))

    got: list[str] = []
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == ["value"] * 20
    assert len(made) == 1


def test_json_of_an_answer_stays_json(r, lite):
    lite.set_cache("k", {"id": "x", "choices": [{"message": {"content": "é"}}]})
    raw = r.execute_command("LLMCACHE.GET", "litellm", "PROMPT", "k")
    assert json.loads(raw)["choices"][0]["message"]["content"] == "é"
    assert (F.a == 1) is not None
