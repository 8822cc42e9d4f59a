"""LlamaIndex: chat stores (the old and the new interface) and a vector store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ._both import Both, needs

try:
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode
    from llama_index.core.storage.chat_store.base import BaseChatStore
    from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise needs("llamaindex", "llama-index-core") from error

import llmcache.asyncio as aio

from .. import _replies as r
from .._sync import DocumentIndex, Session
from ..filters import Condition, F
from ..types import Document, Message


def _written(message: ChatMessage) -> Message:
    role = getattr(message.role, "value", message.role)
    return Message(str(role), json.dumps(message.model_dump(mode="json"), ensure_ascii=False))


def _read(message: Message) -> ChatMessage:
    return ChatMessage.model_validate(json.loads(message.raw))


# A conversation without messages is none, as in LlamaIndex's store over Redis; one that is added to meanwhile stays.
_DROP_EMPTY = "if redis.call('SESSION.LEN', KEYS[1]) == 0 then return redis.call('UNLINK', KEYS[1]) end return 0"


class LlmcacheChatStore(BaseChatStore):
    """One key a conversation; every change is one command, and none reorders what it leaves."""

    prefix: str = ""
    ttl: int | None = None
    _both: Any = PrivateAttr()

    def __init__(self, client: Any, *, prefix: str = "chat:", ttl: int | None = None):
        fields: dict[str, Any] = {"prefix": prefix, "ttl": ttl}
        super().__init__(**fields)
        self._both = Both(client, lambda c: c, lambda c: c)

    @classmethod
    def class_name(cls) -> str:
        return "LlmcacheChatStore"

    def _session(self, key: str) -> Session:
        return Session(self._both.sync, self.prefix + key, ttl=self.ttl)

    def _asession(self, key: str) -> aio.Session:
        return aio.Session(self._both.aio, self.prefix + key, ttl=self.ttl)

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        if messages:
            self._session(key).append(*map(_written, messages), replace=True)
        else:
            self._session(key).drop()

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        if messages:
            await self._asession(key).append(*map(_written, messages), replace=True)
        else:
            await self._asession(key).drop()

    def get_messages(self, key: str) -> list[ChatMessage]:
        return [_read(message) for message in self._session(key).messages()]

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        return [_read(message) for message in await self._asession(key).messages()]

    def add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        if idx is None:
            self._session(key).append(_written(message))
        else:
            messages = self.get_messages(key)
            messages.insert(idx, message)
            self.set_messages(key, messages)

    async def async_add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        if idx is None:
            await self._asession(key).append(_written(message))
        else:
            messages = await self.aget_messages(key)
            messages.insert(idx, message)
            await self.aset_messages(key, messages)

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        found = self.get_messages(key)
        self._session(key).drop()
        return found or None

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        found = await self.aget_messages(key)
        await self._asession(key).drop()
        return found or None

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        session = self._session(key)
        found = session.messages()
        if not 0 <= idx < len(found):
            return None
        session.delete(found[idx].seq)
        if len(found) == 1:
            self._both.sync.eval(_DROP_EMPTY, 1, self.prefix + key)
        return _read(found[idx])

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        session = self._asession(key)
        found = await session.messages()
        if not 0 <= idx < len(found):
            return None
        await session.delete(found[idx].seq)
        if len(found) == 1:
            await self._both.aio.eval(_DROP_EMPTY, 1, self.prefix + key)
        return _read(found[idx])

    def delete_last_message(self, key: str) -> ChatMessage | None:
        popped = self._session(key).pop()
        self._both.sync.eval(_DROP_EMPTY, 1, self.prefix + key)
        return _read(popped[0]) if popped else None

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        popped = await self._asession(key).pop()
        await self._both.aio.eval(_DROP_EMPTY, 1, self.prefix + key)
        return _read(popped[0]) if popped else None

    def get_keys(self) -> list[str]:
        keys = self._both.sync.scan_iter(match=f"{self.prefix}*", _type="llm-sessn")
        return sorted(r.text(key)[len(self.prefix) :] for key in keys)

    async def aget_keys(self) -> list[str]:
        keys = [key async for key in self._both.aio.scan_iter(match=f"{self.prefix}*", _type="llm-sessn")]
        return sorted(r.text(key)[len(self.prefix) :] for key in keys)


class LlmcacheDBChatStore(AsyncDBChatStore):
    """What `Memory.from_defaults(chat_store=...)` takes: active and archived messages, each one key a conversation."""

    prefix: str = ""
    ttl: int | None = None
    _both: Any = PrivateAttr()

    def __init__(self, client: Any, *, prefix: str = "memory:", ttl: int | None = None):
        fields: dict[str, Any] = {"prefix": prefix, "ttl": ttl}
        super().__init__(**fields)
        self._both = Both(client, lambda c: c, lambda c: c)

    @classmethod
    def class_name(cls) -> str:
        return "LlmcacheDBChatStore"

    def _session(self, key: str, status: MessageStatus) -> aio.Session:
        # Both keys of a conversation are in its hash slot.
        tag = key if "{" in key else f"{{{key}}}"
        return aio.Session(self._both.aio, f"{self.prefix}{status.value}:{tag}", ttl=self.ttl)

    def _sessions(self, key: str, status: MessageStatus | None) -> list[aio.Session]:
        statuses = [status] if status is not None else list(MessageStatus)
        return [self._session(key, one) for one in statuses]

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        found: list[Message] = []
        for session in self._sessions(key, status):
            found += await session.messages(count=None if limit is None else limit + (offset or 0))
        start = offset or 0
        return [_read(message) for message in found[start : None if limit is None else start + limit]]

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        return sum([await session.count() for session in self._sessions(key, status)])

    async def add_message(self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE) -> None:
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        if messages:
            await self._session(key, status).append(*map(_written, messages))

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        session = self._session(key, status)
        if messages:
            await session.append(*map(_written, messages), replace=True)
        else:
            await session.drop()

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        session = self._session(key, MessageStatus.ACTIVE)
        found = await session.messages()
        if not -len(found) <= idx < len(found):
            return None
        await session.delete(found[idx].seq)
        return _read(found[idx])

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        for session in self._sessions(key, status):
            await session.drop()

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        popped = await self._session(key, MessageStatus.ACTIVE).pop(n, oldest=True) if n > 0 else []
        return [_read(message) for message in popped]

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Into the archive first, then out of the active ones: what is cut off between is there twice, never lost."""
        if n <= 0:
            return []
        active = self._session(key, MessageStatus.ACTIVE)
        found = await active.messages(count=n)
        if found:
            await self._session(key, MessageStatus.ARCHIVED).append(*found)
            await active.delete(*[message.seq for message in found])
        return [_read(message) for message in found]

    async def get_keys(self) -> list[str]:
        found = set()
        async for key in self._both.aio.scan_iter(match=f"{self.prefix}*", _type="llm-sessn"):
            name = r.text(key)[len(self.prefix) :].split(":", 1)[1]
            found.add(name[1:-1] if name.startswith("{") and name.endswith("}") else name)
        return sorted(found)


_COMPARED = {
    FilterOperator.EQ: lambda m, v: m == v,
    FilterOperator.NE: lambda m, v: m != v,
    FilterOperator.GT: lambda m, v: m > v,
    FilterOperator.LT: lambda m, v: m < v,
    FilterOperator.GTE: lambda m, v: m >= v,
    FilterOperator.LTE: lambda m, v: m <= v,
    FilterOperator.IN: lambda m, v: m.in_(v),
    FilterOperator.CONTAINS: lambda m, v: m.contains(v),
    FilterOperator.TEXT_MATCH: lambda m, v: m.contains(v),
    FilterOperator.NIN: lambda m, v: ~m.in_(v),
}


def condition(filters: MetadataFilters) -> Condition | None:
    """LlamaIndex's filters as the server's; what those cannot say exactly is refused."""
    parts: list[Condition] = []
    for one in filters.filters:
        if isinstance(one, MetadataFilters):
            inner = condition(one)
            if inner is not None:
                parts.append(inner)
        else:
            parts.append(_compared(one))
    if not parts:
        return None
    joined = parts[0]
    for part in parts[1:]:
        joined = joined | part if filters.condition == FilterCondition.OR else joined & part
    return ~joined if filters.condition == FilterCondition.NOT else joined


def _compared(one: MetadataFilter) -> Condition:
    member, value = F[one.key], one.value
    if one.operator == FilterOperator.ANY and isinstance(value, list) and value:
        joined = member.contains(value[0])
        for item in value[1:]:
            joined = joined | member.contains(item)
        return joined
    if one.operator == FilterOperator.ALL and isinstance(value, list) and value:
        joined = member.contains(value[0])
        for item in value[1:]:
            joined = joined & member.contains(item)
        return joined
    make = _COMPARED.get(one.operator)
    if make is None:
        raise NotImplementedError(f"the server has no filter for {one.operator}")
    made: Condition = make(member, value)
    return made


class LlmcacheVectorStore(BasePydanticVectorStore):
    """Nodes in an index of the server: modes default and mmr, every filter but `is_empty`."""

    stores_text: bool = True
    flat_metadata: bool = True
    name: str = "nodes"
    _both: Any = PrivateAttr()

    def __init__(self, client: Any, *, name: str = "nodes"):
        fields: dict[str, Any] = {"name": name}
        super().__init__(**fields)
        self._both = Both(client, lambda c: DocumentIndex(c, name), lambda c: aio.DocumentIndex(c, name))

    @classmethod
    def class_name(cls) -> str:
        return "LlmcacheVectorStore"

    @property
    def client(self) -> Any:
        return self._both.sync._connection.client

    def _document(self, node: BaseNode) -> Document:
        meta = node_to_metadata_dict(node, remove_text=True, flat_metadata=self.flat_metadata)
        # A query may name nodes.
        meta["_node_id"] = node.node_id
        text = node.get_content(metadata_mode="none") or ""  # type: ignore[arg-type]
        return Document(node.node_id, text, vector=node.get_embedding(), meta=meta)

    def _node(self, document: Document) -> BaseNode:
        return metadata_dict_to_node(dict(document.meta or {}), text=document.text)

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        self._both.sync.add([self._document(node) for node in nodes])
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        await self._both.aio.add([self._document(node) for node in nodes])
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        self._both.sync.delete(filter=F.ref_doc_id == ref_doc_id)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        await self._both.aio.delete(filter=F.ref_doc_id == ref_doc_id)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> None:
        for ids in self._chosen(node_ids, filters):
            self._both.sync.delete(*ids) if isinstance(ids, list) else self._both.sync.delete(filter=ids)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> None:
        for ids in self._chosen(node_ids, filters):
            await (self._both.aio.delete(*ids) if isinstance(ids, list) else self._both.aio.delete(filter=ids))

    def _chosen(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> list[list[str] | Condition]:
        if node_ids and filters is not None:
            raise ValueError("say node_ids or filters")
        made = condition(filters) if filters is not None else None
        return [node_ids] if node_ids else [made] if made is not None else []

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        index = self._both.sync
        ids = node_ids if node_ids is not None else index.ids(filter=condition(filters) if filters else None)
        return [self._node(document) for document in index.get_many(ids) if document is not None]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        index = self._both.aio
        ids = node_ids if node_ids is not None else await index.ids(filter=condition(filters) if filters else None)
        return [self._node(document) for document in await index.get_many(ids) if document is not None]

    def clear(self) -> None:
        self._both.sync.drop()

    async def aclear(self) -> None:
        await self._both.aio.drop()

    def _asked(self, query: VectorStoreQuery) -> dict[str, Any]:
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            raise NotImplementedError(f"the server has no mode {query.mode.value}")
        if query.query_embedding is None:
            raise ValueError("a query has an embedding")
        asked: dict[str, Any] = {"query": query.query_embedding, "k": query.similarity_top_k}
        chosen = condition(query.filters) if query.filters is not None else None
        named = [F[name].in_(ids) for name, ids in (("_node_id", query.node_ids), ("ref_doc_id", query.doc_ids)) if ids]
        for part in named:
            chosen = part if chosen is None else chosen & part
        asked["filter"] = chosen
        if query.mode == VectorStoreQueryMode.MMR:
            asked["mmr"] = query.mmr_threshold if query.mmr_threshold is not None else 0.5
        return asked

    def _result(self, found: list[Document]) -> VectorStoreQueryResult:
        return VectorStoreQueryResult(
            nodes=[self._node(document) for document in found],
            similarities=[document.similarity or 0.0 for document in found],
            ids=[document.id for document in found],
        )

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        return self._result(self._both.sync.search(**self._asked(query)))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        return self._result(await self._both.aio.search(**self._asked(query)))
