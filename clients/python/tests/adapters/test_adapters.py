"""What the public suites do not ask of the adapters: keys, single flight, tool calls, clusters of loops, filters."""

from __future__ import annotations

import asyncio
import threading
import time

import litellm
import pytest
import redis
import redis.asyncio
from harness.waiting import wait_until
from langchain.agents import create_agent
from langchain_core.embeddings import Embeddings
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from words import embed

from llmcache import F, LLMCache
from llmcache.integrations.dogpile import LlmcacheMutex
from llmcache.integrations.langchain import (
    LlmcacheCache,
    LlmcacheChatMessageHistory,
    LlmcacheMiddleware,
    LlmcacheVectorStore,
)
from llmcache.integrations.langgraph import LlmcacheNodeCache, LlmcacheSaver
from llmcache.integrations.litellm import LlmcacheLiteLLM
from llmcache.integrations.llamaindex import LlmcacheChatStore, LlmcacheDBChatStore
from llmcache.integrations.llamaindex import LlmcacheVectorStore as LlamaVectorStore
from llmcache.integrations.openai_agents import LlmcacheSession


class Words(Embeddings):
    def embed_documents(self, texts):
        return [embed(text) for text in texts]

    def embed_query(self, text):
        return embed(text)


class Counting(GenericFakeChatModel):
    """A model that counts its answers, and takes its time."""

    made: list = []
    seconds: float = 0.0

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        from langchain_core.outputs import ChatGeneration, ChatResult

        self.made.append([m.content for m in messages])
        time.sleep(self.seconds)
        answer = AIMessage(
            f"answer {len(self.made)}", usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def bind_tools(self, tools, **kwargs):
        return self


def counting(seconds=0.0) -> Counting:
    return Counting(messages=iter([]), made=[], seconds=seconds)


def test_a_chat_model_is_cached_by_the_last_text_in_its_context(r):
    model = counting()
    set_llm_cache(LlmcacheCache(r, embeddings=Words(), threshold=0.6))
    try:
        first = model.invoke([SystemMessage("a"), HumanMessage("how do I get my money back")])
        again = model.invoke([SystemMessage("a"), HumanMessage("how can I get my money back")])
        other = model.invoke([SystemMessage("b"), HumanMessage("how do I get my money back")])
        assert first.content == again.content == "answer 1"
        assert other.content == "answer 2"
        # "yes" after another question is another question.
        yes = [
            model.invoke([HumanMessage(q), AIMessage("sure?"), HumanMessage("yes")]).content
            for q in ("red", "blue", "red")
        ]
        assert yes == ["answer 3", "answer 4", "answer 3"]
    finally:
        set_llm_cache(None)


def test_an_agent_is_cached_once_for_all_who_ask(r):
    model = counting(0.3)
    agent = create_agent(
        model, tools=[], middleware=[LlmcacheMiddleware(r, embeddings=Words(), threshold=0.6)], system_prompt="s"
    )
    answers = []

    def ask(text):
        answers.append(agent.invoke({"messages": [HumanMessage(text)]})["messages"][-1].content)

    threads = [threading.Thread(target=ask, args=["how do I get my money back"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["answer 1"] * 8
    ask("how can I get my money back")
    assert answers[-1] == "answer 1"
    assert len(model.made) == 1
    other = create_agent(
        model, tools=[], middleware=[LlmcacheMiddleware(r, embeddings=Words(), threshold=0.6)], system_prompt="t"
    )
    assert (
        other.invoke({"messages": [HumanMessage("how do I get my money back")]})["messages"][-1].content == "answer 2"
    )
    assert LLMCache(r, "agents").stats().tokens_saved > 0

    async def main():
        return [
            (await agent.ainvoke({"messages": [HumanMessage("a new one")]}))["messages"][-1].content for _ in range(2)
        ]

    assert asyncio.run(main()) == ["answer 3", "answer 3"]


def test_tools_are_cached_by_their_arguments(r):
    calls = []

    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        calls.append(city)
        return f"sunny in {city}"

    class Caller(Counting):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            from langchain_core.outputs import ChatGeneration, ChatResult

            self.made.append(1)
            if isinstance(messages[-1], ToolMessage):
                message = AIMessage(messages[-1].content)
            else:
                call = {"name": "weather", "args": {"city": messages[-1].content}, "id": f"call{len(self.made)}"}
                message = AIMessage("", tool_calls=[call])
            return ChatResult(generations=[ChatGeneration(message=message)])

    model = Caller(messages=iter([]), made=[])
    agent = create_agent(model, tools=[weather], middleware=[LlmcacheMiddleware(r, tools={"weather": 60})])
    for _ in range(2):
        said = agent.invoke({"messages": [HumanMessage("Rome")]})["messages"]
        assert said[-1].content == "sunny in Rome"
    assert calls == ["Rome"]
    # What calls a tool is asked anew; what follows the same result, its call of another id, is not.
    assert len(model.made) == 3


def test_a_history_keeps_messages_whole(r, loop_run):
    history = LlmcacheChatMessageHistory(r, "7", ttl=60, window={"pairs": True, "tokens": 1_000})
    call = {"name": "f", "args": {"x": 1}, "id": "c1", "type": "tool_call"}
    messages = [
        HumanMessage("hi", id="h1"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("done", tool_call_id="c1"),
        AIMessage("bye"),
    ]
    history.add_messages(messages)
    assert history.messages == messages
    assert r.ttl("chat:7") > 50
    assert asyncio.run(history.aget_messages()) == messages
    asyncio.run(history.aadd_messages([HumanMessage("again")]))
    assert len(LlmcacheChatMessageHistory(r, "7").messages) == 5
    history.clear()
    assert history.messages == []


def test_a_vector_store_filters_and_chooses(r):
    store = LlmcacheVectorStore.from_texts(
        ["returns are free", "returns cost money", "parcels leave today"], Words(),
        [{"year": 2026}, {"year": 2019}, {"year": 2026}], ids=["a", "b", "c"], client=r,
    )  # fmt: skip
    assert [d.id for d in store.similarity_search("returns", k=3, filter={"year": 2026})] == ["a", "c"]
    assert [d.id for d in store.similarity_search("returns", k=1, filter=F.year < 2020)] == ["b"]
    assert len(store.max_marginal_relevance_search("returns", k=2)) == 2
    found = store.similarity_search_with_relevance_scores("returns are free", k=1)
    assert found[0][1] == pytest.approx(1.0, abs=0.001)
    with pytest.raises(ValueError, match="client"):
        LlmcacheVectorStore.from_texts(["a"], Words())


def graph_of(saver, cache=None):
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph
    from langgraph.types import CachePolicy

    ran = []

    class State(TypedDict):
        n: int

    def double(state: State) -> State:
        ran.append(state["n"])
        return {"n": state["n"] * 2}

    builder = StateGraph(State)
    builder.add_node("double", double, cache_policy=CachePolicy(ttl=60) if cache else None)
    builder.add_edge(START, "double")
    builder.add_edge("double", END)
    return builder.compile(checkpointer=saver, cache=cache), ran


def test_a_graph_is_resumed_and_its_nodes_cached(r):
    saver = LlmcacheSaver(r, ttl=60)
    saver.setup()
    graph, ran = graph_of(saver, LlmcacheNodeCache(r))
    config = {"configurable": {"thread_id": "t{1}:x"}}
    assert graph.invoke({"n": 2}, config) == {"n": 4}
    assert graph.get_state(config).values == {"n": 4}
    assert len(list(graph.get_state_history(config))) >= 2
    assert graph.invoke({"n": 2}, {"configurable": {"thread_id": "other"}}) == {"n": 4}
    assert ran == [2]
    for key in r.scan_iter("checkpoint:*"):
        assert 0 < r.ttl(key) <= 60
    saver.prune(["t{1}:x"])
    assert graph.get_state(config).values == {"n": 4}
    assert len(list(saver.list(config))) == 1
    with pytest.raises(ValueError, match="pruned by"):
        saver.prune(["t{1}:x"], strategy="nonsense")
    saver.delete_thread("t{1}:x")
    assert graph.get_state(config).values == {}
    r.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.warns(UserWarning, match="evict"):
        saver.setup()
    r.config_set("maxmemory-policy", "noeviction")


def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from(r):
    """Of a channel that has a version and no value, the ancestors up to the nearest value stay."""
    from langgraph.checkpoint.base import empty_checkpoint

    saver = LlmcacheSaver(r)
    parent = {"configurable": {"thread_id": "d", "checkpoint_ns": ""}}
    ids = []
    for step in range(6):
        checkpoint = empty_checkpoint()
        checkpoint["channel_versions"] = {"log": str(step), "n": str(step)}
        checkpoint["channel_values"] = {"n": step, **({"log": ["snapshot"]} if step in (0, 2) else {})}
        parent = saver.put(parent, checkpoint, {"step": step}, {})
        ids.append(parent["configurable"]["checkpoint_id"])
        saver.put_writes(parent, [("log", f"w{step}")], f"task{step}")
    before = saver.get_delta_channel_history(config=parent, channels=["log"])
    saver.prune(["d"])
    assert [
        t.config["configurable"]["checkpoint_id"] for t in saver.list(parent | {"configurable": {"thread_id": "d"}})
    ] == ids[:1:-1]
    assert saver.get_delta_channel_history(config=parent, channels=["log"]) == before


def test_a_task_that_writes_again_keeps_its_first_writes(r):
    from langgraph.checkpoint.base import empty_checkpoint

    saver = LlmcacheSaver(r)
    config = saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {})
    saver.put_writes(config, [("a", 1)], "task")
    saver.put_writes(config, [("a", 2), ("b", 3)], "task")
    saver.put_writes(config, [("__error__", "x")], "task")
    saver.put_writes(config, [("__error__", "y")], "task")
    found = saver.get_tuple(config)
    assert sorted((c, v) for _, c, v in found.pending_writes) == [("__error__", "y"), ("a", 1), ("b", 3)]


def test_litellm_asks_the_model_once(server, r):
    litellm.cache = litellm.Cache(type="local")
    litellm.cache.cache = LlmcacheLiteLLM(r, embed=embed, threshold=0.6)

    def ask(text: str, answer: str):
        messages = [{"role": "user", "content": text}]
        return litellm.acompletion(
            model="gpt-4o", messages=messages, caching=True, mock_response=answer, mock_delay=0.3
        )

    try:

        async def main():
            many = await asyncio.gather(*(ask("how do I get my money back", f"answer {n}") for n in range(8)))
            stored = lambda: "cmdstat_LLMCACHE.SETSEM" in r.info("commandstats")  # noqa: E731
            await asyncio.to_thread(wait_until, stored, "the first answer is stored")
            many.append(await ask("how can I get my money back", "another"))
            return {one.choices[0].message.content for one in many}

        assert len(asyncio.run(main())) == 1
        assert r.info("commandstats")["cmdstat_LLMCACHE.SETSEM"]["calls"] == 1
    finally:
        litellm.cache = None


def test_an_agents_session_serves_several_loops(server):
    session = LlmcacheSession("u", redis.asyncio.Redis(port=server.port), ttl=60)
    asyncio.run(session.add_items([{"role": "user", "content": "a"}, {"type": "function_call", "name": "f"}]))
    assert [i.get("content", i.get("name")) for i in asyncio.run(session.get_items())] == ["a", "f"]
    assert asyncio.run(session.get_items(1)) == [{"type": "function_call", "name": "f"}]
    assert asyncio.run(session._atomic_replace_items([{"role": "user", "content": "b"}]))
    assert asyncio.run(session.pop_item()) == {"role": "user", "content": "b"}
    assert asyncio.run(session.pop_item()) is None
    assert asyncio.run(session.ping())
    asyncio.run(session.close())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(session.get_items())


def test_llamaindex_stores(server, r):
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery

    store = LlmcacheChatStore(r)
    store.set_messages("k", [ChatMessage(role="user", content=c) for c in "abc"])
    store.add_message("k", ChatMessage(role="user", content="X"), idx=1)
    assert store.delete_message("k", 1).content == "X"
    assert [m.content for m in store.get_messages("k")] == ["a", "b", "c"]
    assert store.delete_message("k", 9) is None
    assert store.delete_message("k", -1) is None
    assert store.get_keys() == ["k"]
    assert asyncio.run(store.aget_keys()) == ["k"]
    # Without messages there is no conversation.
    for remove in (
        lambda: store.delete_message("one", 0),
        lambda: asyncio.run(store.adelete_message("one", 0)),
        lambda: store.delete_last_message("one"),
        lambda: asyncio.run(store.adelete_last_message("one")),
    ):
        store.add_message("one", ChatMessage(role="user", content="only"))
        assert remove().content == "only"
        assert store.get_keys() == ["k"]
    memory = LlmcacheDBChatStore(r)

    async def main():
        await memory.add_messages("k", [ChatMessage(role="user", content=str(n)) for n in range(5)])
        archived = await memory.archive_oldest_messages("k", 2)
        removed = await memory.delete_oldest_messages("k", 1)
        return (
            [m.content for m in archived + removed],
            await memory.count_messages("k"),
            await memory.count_messages("k", None),
            await memory.get_keys(),
        )

    assert asyncio.run(main()) == (["0", "1", "2"], 2, 4, ["k"])
    nodes = LlamaVectorStore(r)
    made = [TextNode(id_=f"n{n}", text=f"text {n}", embedding=[1.0, n], metadata={"n": n}) for n in range(4)]
    made[0].relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="doc")
    nodes.add(made)
    wanted = MetadataFilters(filters=[MetadataFilter(key="n", value=2, operator=FilterOperator.LTE)])
    found = nodes.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=9, filters=wanted))
    assert found.ids == ["n0", "n1", "n2"]
    assert found.nodes[0].text == "text 0"
    nodes.delete("doc")
    nodes.delete_nodes(["n1"])
    assert [n.node_id for n in nodes.get_nodes(filters=wanted)] == ["n2"]
    nodes.clear()
    with pytest.raises(NotImplementedError):
        nodes.get_nodes(
            filters=MetadataFilters(filters=[MetadataFilter(key="n", value=None, operator=FilterOperator.IS_EMPTY)])
        )


def test_a_mutex_of_dogpile_wakes_who_waits(r):
    one, two = LlmcacheMutex(r, "locks", "k", 30.0), LlmcacheMutex(r, "locks", "k", 30.0)
    assert one.acquire()
    assert not two.acquire(blocking=False)
    assert two.locked()
    waited = []
    waiting = threading.Thread(target=lambda: waited.append(two.acquire()))
    waiting.start()
    time.sleep(0.1)
    one.release()
    waiting.join(60)
    assert waited == [True]
    two.release()
    assert not one.locked()
