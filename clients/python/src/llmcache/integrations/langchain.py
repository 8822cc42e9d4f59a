"""LangChain: caches for models and agents, cached embeddings, a vector store, a chat history.

Answers are cached by the last text of the user, in the context of model, system prompt, tools and earlier turns:
two conversations that end in "yes" share nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from ._both import Both, needs

try:
    from langchain_core.caches import BaseCache
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.documents import Document as LangChainDocument
    from langchain_core.embeddings import Embeddings
    from langchain_core.load import dumps, loads
    from langchain_core.messages import (
        AIMessage,
        BaseMessage,
        HumanMessage,
        ToolMessage,
        message_to_dict,
        messages_from_dict,
    )
    from langchain_core.outputs import Generation
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise needs("langchain", "langchain-core") from error

import llmcache.asyncio as aio

from .. import filters
from .._sync import DocumentIndex, EmbeddingCache, LLMCache, Session
from ..types import Answer, Context, Document, Hit, Message


class LlmcacheCache(BaseCache):
    """For `set_llm_cache`: exact, and with `embeddings` by meaning too. One round trip a look-up, one a store."""

    def __init__(
        self,
        client: Any,
        name: str = "langchain",
        *,
        embeddings: Embeddings | None = None,
        threshold: float | None = None,
        ttl: float | None = None,
        scope: str = "",
    ):
        self._embeddings = embeddings
        options: dict[str, Any] = {"threshold": threshold, "ttl": ttl, "scope": scope}
        self.both = Both(client, lambda c: LLMCache(c, name, **options), lambda c: aio.LLMCache(c, name, **options))

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        question, context = asked(prompt, llm_string)
        if self._embeddings is None or question is None:
            return _generations(self.both.sync.get(prompt, context=Context(llm=llm_string)))
        hit = self.both.sync.search(question, vector=self._embeddings.embed_query(question), context=context)
        return _generations(hit)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        question, context = asked(prompt, llm_string)
        body = dumps(list(return_val))
        if self._embeddings is None or question is None:
            self.both.sync.set(prompt, body, context=Context(llm=llm_string))
        else:
            self.both.sync.set(question, body, vector=self._embeddings.embed_query(question), context=context)

    def clear(self, **kwargs: Any) -> None:
        self.both.sync.clear()

    async def alookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        question, context = asked(prompt, llm_string)
        if self._embeddings is None or question is None:
            return _generations(await self.both.aio.get(prompt, context=Context(llm=llm_string)))
        vector = await self._embeddings.aembed_query(question)
        return _generations(await self.both.aio.search(question, vector=vector, context=context))

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        question, context = asked(prompt, llm_string)
        body = dumps(list(return_val))
        if self._embeddings is None or question is None:
            await self.both.aio.set(prompt, body, context=Context(llm=llm_string))
        else:
            vector = await self._embeddings.aembed_query(question)
            await self.both.aio.set(question, body, vector=vector, context=context)

    async def aclear(self, **kwargs: Any) -> None:
        await self.both.aio.clear()


def _generations(found: str | Hit | None) -> Sequence[Generation] | None:
    if found is None:
        return None
    return cast(Sequence[Generation], _loads(found.response if isinstance(found, Hit) else found))


def _loads(text: str) -> Any:
    # Only what LangChain itself defines: whoever can write to the cache must not choose what is constructed here.
    return loads(text, allowed_objects="core")


def asked(prompt: str, llm_string: str) -> tuple[str | None, Context]:
    """The last text of the user, and all else that the answer depends on; no text where something else came last.

    A chat model's prompt is the JSON of its messages, another model's is the text itself.
    """
    try:
        messages = json.loads(prompt)
    except ValueError:
        messages = None
    if not (isinstance(messages, list) and messages and all(isinstance(m, dict) and "kwargs" in m for m in messages)):
        return prompt, Context(llm=llm_string)
    last = messages[-1]["kwargs"]
    content = last.get("content")
    if last.get("type") != "human" or not isinstance(content, str):
        return None, Context(llm=llm_string)
    earlier = [{k: v for k, v in m["kwargs"].items() if k != "id"} for m in messages[:-1]]
    return content, Context(llm=llm_string, earlier=earlier)


class LlmcacheEmbeddings(Embeddings):
    """Embeddings that are computed once: `LlmcacheEmbeddings(client, OpenAIEmbeddings(), model="...")`.

    Queries and documents are kept apart, because some models embed them differently.
    """

    def __init__(
        self, client: Any, underlying: Embeddings, *, model: str, name: str = "embeddings", ttl: float | None = None
    ):
        self.underlying = underlying
        options: dict[str, Any] = {"model": model, "ttl": ttl}
        self.both = Both(
            client, lambda c: EmbeddingCache(c, name, **options), lambda c: aio.EmbeddingCache(c, name, **options)
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found = self.both.sync.embed_many(texts, self.underlying.embed_documents)
        return [list(vector) for vector in found]

    def embed_query(self, text: str) -> list[float]:
        compute = lambda _: [self.underlying.embed_query(text)]  # noqa: E731
        return list(self.both.sync.embed_many([_QUERY + text], compute)[0])

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        found = await self.both.aio.embed_many(texts, self.underlying.aembed_documents)
        return [list(vector) for vector in found]

    async def aembed_query(self, text: str) -> list[float]:
        async def compute(_: list[str]) -> list[list[float]]:
            return [await self.underlying.aembed_query(text)]

        return list((await self.both.aio.embed_many([_QUERY + text], compute))[0])


_QUERY = "\0query\0"


class LlmcacheVectorStore(VectorStore):
    """Documents in an index of the server; ids, metadata and scores as LangChain's own tests want them.

    `filter` of a search is an expression of docs/filter.md, or one of `llmcache.F`.
    """

    def __init__(self, client: Any, name: str = "documents", *, embeddings: Embeddings, shards: int = 1):
        self._embedding = embeddings
        options: dict[str, Any] = {"shards": shards}
        self.both = Both(
            client, lambda c: DocumentIndex(c, name, **options), lambda c: aio.DocumentIndex(c, name, **options)
        )

    @property
    def embeddings(self) -> Embeddings:
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        listed = list(texts)
        made = _documents(listed, metadatas, ids, self._embedding.embed_documents(listed), kwargs)
        self.both.sync.add(made)
        return [document.id for document in made]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        listed = list(texts)
        made = _documents(listed, metadatas, ids, await self._embedding.aembed_documents(listed), kwargs)
        await self.both.aio.add(made)
        return [document.id for document in made]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        if ids is None:
            self.both.sync.drop()
        else:
            self.both.sync.delete(*ids)
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        if ids is None:
            await self.both.aio.drop()
        else:
            await self.both.aio.delete(*ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        return [_langchain(document) for document in self.both.sync.get_many(list(ids)) if document is not None]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        found = await self.both.aio.get_many(list(ids))
        return [_langchain(document) for document in found if document is not None]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """The nearest documents with their cosine similarity, -1 to 1."""
        found = self.both.sync.search(embedding, k=k, **_options(kwargs))
        return [(_langchain(document), document.similarity or 0.0) for document in found]

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """The nearest documents with their cosine similarity, -1 to 1."""
        found = await self.both.aio.search(embedding, k=k, **_options(kwargs))
        return [(_langchain(document), document.similarity or 0.0) for document in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        return self.similarity_search_with_score_by_vector(self._embedding.embed_query(query), k, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        vector = await self._embedding.aembed_query(query)
        return await self.asimilarity_search_with_score_by_vector(vector, k, **kwargs)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, **kwargs)]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[LangChainDocument]:
        found = await self.asimilarity_search_with_score_by_vector(embedding, k, **kwargs)
        return [document for document, _ in found]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        return self.similarity_search_by_vector(self._embedding.embed_query(query), k, **kwargs)

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        return await self.asimilarity_search_by_vector(await self._embedding.aembed_query(query), k, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """Chosen in the server, among the 4 k nearest; `fetch_k` is not needed."""
        return self.similarity_search_by_vector(embedding, k, mmr=lambda_mult, **kwargs)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """Chosen in the server, among the 4 k nearest; `fetch_k` is not needed."""
        return await self.asimilarity_search_by_vector(embedding, k, mmr=lambda_mult, **kwargs)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        vector = await self._embedding.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # A cosine below 0 says as little as 0.
        return lambda similarity: max(0.0, similarity)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        client: Any = None,
        name: str = "documents",
        **kwargs: Any,
    ) -> LlmcacheVectorStore:
        if client is None:
            raise ValueError("client is a redis-py or valkey-py client, or a url")
        store = cls(client, name, embeddings=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store


def _documents(
    texts: list[str], metadatas: list[dict[str, Any]] | None, ids: Sequence[str | None] | None,
    vectors: list[list[float]], options: Mapping[str, Any],
) -> list[Document]:  # fmt: skip
    metas: Sequence[Mapping[str, Any]] = metadatas if metadatas is not None else [{}] * len(texts)
    named = [given or uuid.uuid4().hex for given in (ids if ids is not None else [None] * len(texts))]
    return [
        Document(id, text, vector=vector, meta=meta or None, ttl=options.get("ttl"))
        for id, text, vector, meta in zip(named, texts, vectors, metas, strict=True)
    ]


def _langchain(document: Document) -> LangChainDocument:
    return LangChainDocument(id=document.id, page_content=document.text, metadata=dict(document.meta or {}))


def _options(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: kwargs[name] for name in ("filter", "mmr", "tokens", "ef") if kwargs.get(name) is not None}
    if kwargs.get("score_threshold") is not None:
        known["similarity"] = kwargs["score_threshold"]
    if isinstance(known.get("filter"), dict):
        known["filter"] = equal(known["filter"])
    return known


def equal(members: Mapping[str, Any]) -> filters.Condition:
    """A filter of members that have these values, as LangChain's dicts say it."""
    conditions = [filters.F[name] == value for name, value in members.items()]
    if not conditions:
        raise ValueError("an empty filter says nothing")
    joined: filters.Condition = conditions[0]
    for condition in conditions[1:]:
        joined = joined & condition
    return joined


class LlmcacheChatMessageHistory(BaseChatMessageHistory):
    """The messages of a conversation, whole: tool calls, ids and metadata included. One key, one deadline."""

    def __init__(
        self,
        client: Any,
        session_id: str,
        *,
        prefix: str = "chat:",
        ttl: int | None = None,
        max_messages: int | None = None,
        window: Mapping[str, Any] | None = None,
    ):
        key = f"{prefix}{session_id}"
        options: dict[str, Any] = {"ttl": ttl, "maxlen": max_messages}
        self.session_id = session_id
        self._window = dict(window or {})
        self.both = Both(client, lambda c: Session(c, key, **options), lambda c: aio.Session(c, key, **options))

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        if self._window:
            return _read(self.both.sync.window(**self._window).messages)
        return _read(self.both.sync.messages())

    async def aget_messages(self) -> list[BaseMessage]:
        if self._window:
            return _read((await self.both.aio.window(**self._window)).messages)
        return _read(await self.both.aio.messages())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        if messages:
            self.both.sync.append(*_written(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        if messages:
            await self.both.aio.append(*_written(messages))

    def clear(self) -> None:
        self.both.sync.drop()

    async def aclear(self) -> None:
        await self.both.aio.drop()


_ROLES = {"human": "user", "ai": "assistant"}


def _written(messages: Sequence[BaseMessage]) -> list[Message]:
    made = []
    for message in messages:
        calls = message.tool_calls if isinstance(message, AIMessage) else []
        text = message.text if isinstance(message.text, str) else str(message.content)
        made.append(
            Message(
                _ROLES.get(message.type, message.type),
                json.dumps(message_to_dict(message), ensure_ascii=False),
                tokens=-(-len(text.encode()) // 4),
                call=calls[0]["id"] if len(calls) == 1 else None,
                result=message.tool_call_id if isinstance(message, ToolMessage) else None,
            )
        )
    return made


def _read(messages: Sequence[Message]) -> list[BaseMessage]:
    return messages_from_dict([json.loads(message.raw) for message in messages])


try:
    from langchain.agents.middleware.types import AgentMiddleware, ModelRequest, ModelResponse, ToolCallRequest
except ImportError:  # langchain-core alone is enough for all above.
    pass
else:
    from langgraph.types import Command as GraphCommand

    class LlmcacheMiddleware(AgentMiddleware):
        """Caches what an agent's model answers, and what the tools named in `tools` return; one makes it, all wait.

        An answer is found by the last text of the user, exactly or (with `embeddings`) by meaning, among those with
        the same model, settings, system prompt, tools and earlier turns. Answers that call tools are made anew
        unless `tool_calls`. `scope` is a tenant, or a function of the request that names it. `tools` is a list of
        names, or maps names to seconds to live.
        """

        def __init__(
            self,
            client: Any,
            name: str = "agents",
            *,
            embeddings: Embeddings | None = None,
            threshold: float | None = None,
            ttl: float | None = None,
            scope: str | Callable[[ModelRequest[Any]], str] = "",
            tools: Sequence[str] | Mapping[str, float] = (),
            tool_calls: bool = False,
            lease: float = 30.0,
            wait: float = 60.0,
        ):
            super().__init__()
            self._embeddings, self._scope, self._tool_calls = embeddings, scope, tool_calls
            self._ttls: dict[str, float | None] = dict(tools) if isinstance(tools, Mapping) else dict.fromkeys(tools)
            options: dict[str, Any] = {"threshold": threshold, "ttl": ttl, "lease": lease, "wait": wait}
            self.both = Both(client, lambda c: LLMCache(c, name, **options), lambda c: aio.LLMCache(c, name, **options))

        def _asked(self, request: ModelRequest[Any]) -> dict[str, Any]:
            question, context = question_of(request)
            scope = self._scope(request) if callable(self._scope) else self._scope
            return {"prompt": question, "context": context, "scope": scope}

        def _by_meaning(self, request: ModelRequest[Any]) -> bool:
            return self._embeddings is not None and isinstance(request.messages[-1], HumanMessage)

        def wrap_model_call(
            self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
        ) -> ModelResponse[Any]:
            asked = self._asked(request)
            if self._embeddings is not None and self._by_meaning(request):
                asked["vector"] = self._embeddings.embed_query(asked["prompt"])
            made: list[ModelResponse[Any]] = []

            def make() -> Answer:
                made.append(handler(request))
                return self._answer(made[0])

            text = self.both.sync.get_or_make(make=make, **asked)
            return made[0] if made else _response(text)

        async def awrap_model_call(
            self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
        ) -> ModelResponse[Any]:
            asked = self._asked(request)
            if self._embeddings is not None and self._by_meaning(request):
                asked["vector"] = await self._embeddings.aembed_query(asked["prompt"])
            made: list[ModelResponse[Any]] = []

            async def make() -> Answer:
                made.append(await handler(request))
                return self._answer(made[0])

            text = await self.both.aio.get_or_make(make=make, **asked)
            return made[0] if made else _response(text)

        def _answer(self, response: ModelResponse[Any]) -> Answer:
            messages = response.result
            calls = any(isinstance(m, AIMessage) and m.tool_calls for m in messages)
            usage = next((m.usage_metadata for m in messages if isinstance(m, AIMessage) and m.usage_metadata), None)
            return Answer(
                dumps(messages),
                tokens=usage["total_tokens"] if usage else None,
                store=response.structured_response is None and (self._tool_calls or not calls),
            )

        def wrap_tool_call(
            self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | GraphCommand[Any]]
        ) -> ToolMessage | GraphCommand[Any]:
            name = request.tool_call["name"]
            if name not in self._ttls:
                return handler(request)
            made: list[ToolMessage | GraphCommand[Any]] = []

            def make() -> Answer:
                made.append(handler(request))
                return _tool_answer(made[0])

            text = self.both.sync.get_or_make(make=make, ttl=self._ttls[name], **_tool_asked(request, self._scope))
            return made[0] if made else _tool_message(text, request)

        async def awrap_tool_call(
            self,
            request: ToolCallRequest,
            handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | GraphCommand[Any]]],
        ) -> ToolMessage | GraphCommand[Any]:
            name = request.tool_call["name"]
            if name not in self._ttls:
                return await handler(request)
            made: list[ToolMessage | GraphCommand[Any]] = []

            async def make() -> Answer:
                made.append(await handler(request))
                return _tool_answer(made[0])

            asked = _tool_asked(request, self._scope)
            text = await self.both.aio.get_or_make(make=make, ttl=self._ttls[name], **asked)
            return made[0] if made else _tool_message(text, request)

    def _response(text: str) -> ModelResponse[Any]:
        messages = _loads(text)
        for message in messages:
            # Another conversation's id would have its message replaced in a graph's state.
            message.id = f"run--{uuid.uuid4()}"
        return ModelResponse(result=messages)

    def _tool_asked(request: ToolCallRequest, scope: Any) -> dict[str, Any]:
        call = request.tool_call
        prompt = json.dumps(call["args"], sort_keys=True, ensure_ascii=False, default=str)
        fixed = scope if isinstance(scope, str) else ""
        if callable(scope):
            fixed = scope(request)
        return {"prompt": prompt, "context": Context(tool=call["name"]), "scope": fixed}

    def _tool_answer(result: Any) -> Answer:
        store = isinstance(result, ToolMessage) and result.status != "error" and result.artifact is None
        return Answer(dumps(result) if store else "", store=store)

    def _tool_message(text: str, request: ToolCallRequest) -> ToolMessage:
        message = cast(ToolMessage, _loads(text))
        return message.model_copy(update={"tool_call_id": request.tool_call["id"], "id": None})


def question_of(request: Any) -> tuple[str, Context]:
    """The last text of the user, and all else that an agent's answer depends on."""
    numbers: dict[str, int] = {}
    earlier = [_canonical(message, numbers) for message in request.messages[:-1]]
    last = request.messages[-1]
    system = request.system_message
    context = Context(
        model=_model(request.model),
        settings=request.model_settings,
        system=system.content if system is not None else None,
        tools=[_tool(tool) for tool in request.tools],
        choice=request.tool_choice,
        format=repr(request.response_format) if request.response_format is not None else None,
        earlier=earlier,
        kind=last.type,
    )
    if isinstance(last, HumanMessage) and isinstance(last.content, str):
        return last.content, context
    return json.dumps(_canonical(last, numbers), sort_keys=True, ensure_ascii=False, default=str), context


def _canonical(message: BaseMessage, numbers: dict[str, int]) -> dict[str, Any]:
    """A message without what differs each time: its id, and the ids of calls, which become their numbers."""

    def number(id: Any) -> int:
        return numbers.setdefault(str(id), len(numbers))

    told: dict[str, Any] = {"type": message.type, "content": message.content, "name": message.name}
    if isinstance(message, AIMessage) and message.tool_calls:
        told["calls"] = [[call["name"], call["args"], number(call["id"])] for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        told["result"] = number(message.tool_call_id)
    return told


def _model(model: Any) -> dict[str, Any]:
    told = {"class": f"{type(model).__module__}.{type(model).__qualname__}"}
    for name in ("_identifying_params", "_default_params"):
        params = getattr(model, name, None)
        if isinstance(params, Mapping):
            told |= {key: value for key, value in params.items() if _is_plain(value)}
    for name in ("model", "model_name", "temperature", "max_tokens", "top_p", "stop", "seed"):
        value = getattr(model, name, None)
        if value is not None and _is_plain(value):
            told[name] = value
    return told


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(member) for member in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(member) for member in value)
    return value is None or isinstance(value, str | int | float | bool)


def _tool(tool: Any) -> Any:
    if isinstance(tool, dict):
        return tool
    return {"name": tool.name, "description": tool.description, "args": tool.args}


__all__ = [
    "LlmcacheCache",
    "LlmcacheChatMessageHistory",
    "LlmcacheEmbeddings",
    "LlmcacheMiddleware",
    "LlmcacheVectorStore",
]
