"""What the methods of an index of documents do (`RAG.*`), as flows. Knows no socket, thread or loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from . import _replies as r
from . import filters, limits, vectors
from ._flow import Argument, Call, Command, Flow, Many
from ._moving import Progress, move_documents
from ._observe import observed
from ._several import batches, every, expiry, present, scanned, summed, weighed
from ._shards import Shards
from .errors import NoCache, TooBig
from .types import Document, Embed, EmbedMany, Fields
from .vectors import Vector

if TYPE_CHECKING:
    from ._clients import _Shared

_WORDS = {"dim": "DIM", "matryoshka": "MATRYOSHKA", "model": "MODEL", "ttl": "TTL", "quant": "QUANT",
          "index": "INDEX", "m": "M", "efc": "EFC", "ef": "EF", "maxentries": "MAXENTRIES", "maxmemory": "MAXMEMORY",
          "words": "WORDS", "embed": "EMBED", "script": "SCRIPT"}  # fmt: skip
# Ids that RAG.MADD would read as options of the document before.
_OPTION_WORDS = {"TEXT", "META", "TAGS", "TOKENS", "EX", "PX", "EXAT", "PXAT", "PERSIST", "FP32", "FP16", "VALUES",
                 "NOVECTOR", "TRUNCATE"}  # fmt: skip


class DocumentBase:
    _connection: Any

    def __init__(
        self,
        client: Any,
        name: str = "documents",
        *,
        embed: Embed | None = None,
        embed_many: EmbedMany | None = None,
        shards: int = 1,
        shards_before: int | None = None,
    ):
        self._connection = self._connect(client)
        self.name, self.embed, self.embed_many = name, embed, embed_many
        self.shards = Shards(name, shards, shards_before)

    def _connect(self, client: Any) -> Any:
        raise NotImplementedError


def _argument(document: Document, vector: Vector | None) -> list[Argument]:
    found: tuple[Argument, ...] = ("NOVECTOR",) if vector is None else vectors.blob(vector)
    args: list[Argument] = [r.raw(document.id), *found, "TEXT", r.raw(document.text)]
    if document.meta is not None:
        args += ["META", json.dumps(document.meta, ensure_ascii=False)]
    args += r.tagged(document.tags)
    if document.tokens is not None:
        args += ["TOKENS", document.tokens]
    return args + expiry(document.ttl)


class DocumentFlows(DocumentBase):
    if TYPE_CHECKING:
        _connection: _Shared

    def create(self, /, **settings: Any) -> Flow[None]:
        """Creates the index: dim, matryoshka, model, ttl, quant, index, m, efc, ef, maxentries, maxmemory, words."""
        args: list[Argument] = []
        for word, value in settings.items():
            if word not in _WORDS:
                raise TypeError(f"an index has no setting {word!r}; there are {', '.join(_WORDS)}")
            if value is not None:
                args += [_WORDS[word], value]
        yield from every([("RAG.CREATE", name, *args) for name in self.shards.names()])

    def add(self, documents: Iterable[Document], *, embed: bool = True) -> Flow[int]:
        """Stores documents, embedding those without a vector; a document of the same id is replaced. How many are new.

        With `embed=False` a document without a vector is kept without: found by its id and by filters, never by
        meaning. Goes in batches, each stored whole or not at all.
        """
        documents = list(documents)
        given = [document.vector for document in documents]
        bare = [at for at, vector in enumerate(given) if vector is None and embed]
        if bare and self.embed_many is not None:
            made = yield Call(self.embed_many, ([documents[at].text for at in bare],))
            for at, vector in zip(bare, made, strict=True):
                given[at] = vector
        elif bare and self.embed is not None:
            for at in bare:
                given[at] = yield Call(self.embed, (documents[at].text,))
        elif bare:
            raise ValueError(f"document {documents[bare[0]].id!r} has no vector, and the index has no embed")
        commands: list[list[Argument]] = []
        groups: dict[str, list[list[Argument]]] = {}
        for document, vector in zip(documents, given, strict=True):
            name = self.shards.place(r.raw(document.id))
            args = _argument(document, vector)
            if document.id.upper() in _OPTION_WORDS:
                commands.append(["RAG.ADD", name, *args])
            else:
                groups.setdefault(name, []).append(args)
        for name, rows in groups.items():
            for batch in weighed(rows, limits.STORE_BATCH, limits.BATCH_BYTES):
                commands.append(["RAG.MADD", name, len(batch), *(a for row in batch for a in row)])
        new = 0
        for command in commands:
            reply = yield Command(command)
            new += sum(int(n) for n in reply) if isinstance(reply, list) else int(reply)
        return new

    def search(
        self,
        query: str | Vector | None = None,
        *,
        words: str | None = None,
        fuse: tuple[str, float] | None = None,
        k: int = 10,
        offset: int = 0,
        filter: filters.Filter | None = None,
        similarity: float | None = None,
        mmr: float | None = None,
        tokens: int | None = None,
        ef: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> Flow[list[Document]]:
        """The `k` nearest documents, best first: diverse with `mmr` below 1, within a budget of `tokens`.

        With `words`, in the language of `RAG.SEARCH … WORDS`, documents are found by their words; beside a query both
        orders become one, as `fuse` says: `("rrf", 60)` or `("linear", 0.6)`. For indexes of one shard: scores of words
        depend on all documents of an index.
        """
        if fields is None:
            fields = ("id", "similarity" if words is None else "score", "text", "meta", "tags")
        with observed("documents.search", self.name) as told:
            if isinstance(query, str):
                if self.embed is None:
                    raise ValueError("a text can be searched for where the index has embed")
                query = cast(Vector, (yield Call(self.embed, (query,))))
            # Of several shards each may hold all that is passed over.
            split = self.shards.count > 1 or self.shards.was is not None
            args: list[Argument] = []
            if query is not None:
                args += vectors.blob(query)
            if words is not None:
                if split:
                    raise ValueError("words are searched in an index of one shard")
                args += ["WORDS", words]
                if fuse is not None:
                    args += ["FUSE", fuse[0], fuse[1]]
            elif query is None or fuse is not None:
                raise ValueError("a query or words are needed; fuse goes with words")
            args += ["COUNT", k + offset if split else k]
            if offset and not split:
                args += ["OFFSET", offset]
            if filter is not None:
                args += ["FILTER", filters.text(filter)]
            if similarity is not None:
                args += ["SIMILARITY", similarity]
            if mmr is not None:
                args += ["MMR", mmr]
            if tokens is not None and not (split and offset):
                args += ["TOKENS", tokens]
            if ef is not None:
                args += ["EF", ef]
            needed = dict.fromkeys([*fields, *(("similarity", "tokens") if self.shards.count > 1 else ())])
            args += ["RETURN", len(needed), *needed]
            names = self.shards.every()
            replies = yield from present([("RAG.SEARCH", name, *args) for name in names])
            found = [Document.of(one) for reply in replies for one in reply]
            if len(names) > 1:
                found.sort(key=lambda document: document.similarity or 0.0, reverse=True)
                found = _within(found[offset : offset + k], tokens)
            told["result"] = "hit" if found else "miss"
            told["found"] = len(found)
        return found

    def get(self, id: str) -> Flow[Document | None]:
        """A document by its id."""
        found = yield from DocumentFlows.get_many(self, [id])
        return found[0]

    def get_many(self, ids: Sequence[str], *, fields: Sequence[str] | None = None) -> Flow[list[Document | None]]:
        """Documents by their ids in one trip, None where there is none; `fields` may ask for the `vector` too."""
        found: list[Document | None] = [None] * len(ids)
        chosen: list[Argument] = [] if fields is None else ["RETURN", len(fields), *fields]
        yield from _fill(found, ids, chosen, self.shards.places)
        if self.shards.was is not None:
            # What was moved after it was asked for where it belongs is there now.
            yield from _fill(found, ids, chosen, lambda key: (self.shards.place(key),))
        return found

    def delete(self, *ids: str, filter: filters.Filter | None = None, tag: str | None = None) -> Flow[int]:
        """Removes documents by id, or all that match a filter, or that carry a tag; how many there were."""
        if bool(ids) + (filter is not None) + (tag is not None) > 1:
            raise TypeError("say ids, a filter or a tag")
        if filter is not None or tag is not None:
            which = ("TAG", r.raw(tag)) if tag is not None else ("FILTER", filters.text(cast(filters.Filter, filter)))
            return sum((yield from present([("RAG.DEL", name, *which) for name in self.shards.every()])))
        commands: list[Sequence[Argument]] = []
        groups: dict[str, list[bytes]] = {}
        for id in ids:
            for name in self.shards.places(r.raw(id)):
                groups.setdefault(name, []).append(r.raw(id))
        for name, members in groups.items():
            commands += [("RAG.DEL", name, "IDS", len(batch), *batch) for batch in batches(members, limits.STORE_BATCH)]
        return sum((yield from present(commands)))

    def ids(self, *, filter: filters.Filter | None = None) -> Flow[list[str]]:
        """The ids of all documents; in pages, so that no command holds up the server."""
        tail: list[Argument] = [] if filter is None else ["FILTER", filters.text(filter)]
        found: list[str] = []
        for name in self.shards.every():
            found += yield from scanned("RAG.SCAN", name, tail)
        return found

    def move(self, *, progress: Progress | None = None) -> Flow[int]:
        """Brings what was stored in `shards_before` shards to where it belongs now; how many documents moved."""
        return (yield from move_documents(self, _WORDS, progress))

    def info(self) -> Flow[Fields]:
        """Settings, graph and memory; of several shards summed."""
        replies = yield from present([("RAG.INFO", name) for name in self.shards.every()])
        if not replies:
            raise NoCache(f'NOCACHE there is no index "{self.name}"')
        return summed([Fields.of(reply) for reply in replies])

    def drop(self) -> Flow[bool]:
        """Removes the index and its documents; whether there was one."""
        return any((yield from every([("RAG.DROP", name) for name in self.shards.every()])))


def _within(found: list[Document], tokens: int | None) -> list[Document]:
    if tokens is None:
        return found
    left = tokens
    for at, document in enumerate(found):
        left -= document.tokens or 0
        if left < 0:
            return found[:at]
    return found


def _fill(
    found: list[Document | None], ids: Sequence[str], chosen: list[Argument], places: Callable[[bytes], Sequence[str]]
) -> Flow[None]:
    """Asks for those that are not found yet, each at its places; what is found first stays."""
    groups: dict[str, list[int]] = {}
    for at, id in enumerate(ids):
        for name in places(r.raw(id)) if found[at] is None else ():
            groups.setdefault(name, []).append(at)
    asked = [(name, batch) for name, members in groups.items() for batch in batches(members, limits.STORE_BATCH)]
    while asked:
        replies = yield Many(
            [("RAG.MGET", name, "IDS", len(b), *(r.raw(ids[at]) for at in b), *chosen) for name, b in asked]
        )
        again: list[tuple[str, Sequence[int]]] = []
        for (name, batch), reply in zip(asked, replies, strict=True):
            if isinstance(reply, TooBig) and len(batch) > 1:
                # More text than one reply may hold.
                half = len(batch) // 2
                again += [(name, batch[:half]), (name, batch[half:])]
            elif isinstance(reply, Exception) and not isinstance(reply, NoCache):
                raise reply
            elif not isinstance(reply, Exception):
                for at, one in zip(batch, reply, strict=True):
                    if one is not None and found[at] is None:
                        found[at] = Document.of(one)
        asked = again
