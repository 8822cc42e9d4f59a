"""What the methods of a conversation do (`SESSION.*`), as flows. Knows no socket, thread or loop.

Every message goes with an `ID`, so that a client library that sends a command again after a lost reply appends
nothing twice.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from . import _replies as r
from . import limits, vectors
from ._flow import Argument, Call, Command, Flow, Sleep
from ._several import expiry, milliseconds, weighed
from .errors import StreamGone, StreamTaken
from .types import Appended, Embed, Fields, Listed, Message, Part, Recalled, Window
from .vectors import Vector

if TYPE_CHECKING:
    from ._clients import _Shared

FOLLOW_SECONDS = 30.0
"""How long one FOLLOW waits at most; the socket's timeout may make it less."""
EMBEDDED_ROLES = ("user", "assistant")
"""Whose messages are found by meaning."""
POLL_SECONDS = 0.05
"""How often a stream is looked at where no more commands may wait."""


def user(text: str | bytes, **more: Any) -> Message:
    """A message of the user."""
    return Message("user", text, **more)


def assistant(text: str | bytes, **more: Any) -> Message:
    """A message of the assistant."""
    return Message("assistant", text, **more)


def system(text: str | bytes, **more: Any) -> Message:
    """A message of the system."""
    return Message("system", text, **more)


def tool(text: str | bytes, result: str, **more: Any) -> Message:
    """What a tool answered to the call `result`."""
    return Message("tool", text, result=result, **more)


class SessionBase:
    _connection: Any

    def __init__(
        self,
        client: Any,
        key: str,
        *,
        ttl: int | None = None,
        owner: str | None = None,
        maxlen: int | None = None,
        maxtokens: int | None = None,
        embed: Embed | str | None = None,
    ):
        """`embed` computes vectors here, or names a model of the server, which then does."""
        self._connection = self._connect(client)
        self.key, self.ttl, self.owner = key, ttl, owner
        self.maxlen, self.maxtokens, self.embed = maxlen, maxtokens, embed

    def _connect(self, client: Any) -> Any:
        raise NotImplementedError


def message_arguments(message: Message) -> list[Argument]:
    args: list[Argument] = ["MSG", message.role, message.raw, "ID", r.raw(message.id or uuid.uuid4().hex)]
    if message.tokens is not None:
        args += ["TOKENS", message.tokens]
    if message.meta is not None:
        args += ["META", json.dumps(message.meta, ensure_ascii=False)]
    if message.pinned:
        args.append("PIN")
    if message.call is not None:
        args += ["CALL", r.raw(message.call)]
    if message.result is not None:
        args += ["RESULT", r.raw(message.result)]
    return args + vectors.arguments(message.vector)


def _roles(roles: Sequence[str] | None) -> list[Argument]:
    return [] if not roles else ["ROLES", len(roles), *roles]


class SessionFlows(SessionBase):
    if TYPE_CHECKING:
        _connection: _Shared

    # Writing.

    def append(
        self,
        *messages: Message,
        if_seq: int | None = None,
        nx: bool = False,
        xx: bool = False,
        upsert: bool = False,
        replace: bool = False,
    ) -> Flow[Appended | None]:
        """Appends messages in one step with the session's ttl, trims and owner; None where a condition does not hold.

        `if_seq` appends only if that is the newest place; with `upsert` a message of a known id replaces that one where
        it stands; with `replace` these messages take the place of all others. Above 1,024 messages or 512 KiB it takes
        several steps.
        """
        rows: list[list[Argument]] = []
        for message in messages:
            ready = yield from SessionFlows._embedded(self, message)
            row = message_arguments(ready)
            if isinstance(self.embed, str) and ready.vector is None and ready.role not in EMBEDDED_ROLES:
                row.append("NOVECTOR")
            rows.append(row)
        places: list[tuple[int, bool]] = []
        count = tokens = 0
        for number, batch in enumerate(weighed(rows, limits.APPEND_BATCH, limits.APPEND_BYTES)):
            args: list[Argument] = ["SESSION.APPEND", self.key]
            if number == 0:
                args += [*(["NX"] if nx else []), *(["XX"] if xx else [])]
                args += [] if if_seq is None else ["IFSEQ", if_seq]
                args += ["CLEAR"] if replace else []
            args += ["UPSERT"] if upsert else []
            for word, value in (("TTL", self.ttl), ("MAXLEN", self.maxlen), ("MAXTOKENS", self.maxtokens)):
                if value is not None:
                    args += [word, value]
            if self.owner is not None:
                args += ["OWNER", self.owner]
            if isinstance(self.embed, str):
                args += ["EMBED", self.embed]
            args += [one for row in batch for one in row]
            reply = yield Command(args)
            if reply is None:
                return None
            *stored, count, tokens = reply
            places += [(int(seq), int(new) == 1) for seq, new in stored]
        return Appended(places, int(count), int(tokens))

    def _embedded(self, message: Message) -> Flow[Message]:
        import dataclasses

        if self.embed is None or isinstance(self.embed, str):
            return message
        if message.vector is not None or message.role not in EMBEDDED_ROLES:
            return message
        vector = yield Call(self.embed, (message.text,))
        return dataclasses.replace(message, vector=vector)

    def edit(
        self,
        seq: int | None,
        text: str | bytes,
        *,
        id: str | None = None,
        tokens: int | None = None,
        vector: Vector | None = None,
    ) -> Flow[bool]:
        """Replaces what a message says, by its place or its id; whether it was there."""
        which: list[Argument] = ["ID", r.raw(id or "")] if seq is None else [seq]
        args: list[Argument] = [] if tokens is None else ["TOKENS", tokens]
        reply = yield Command(("SESSION.EDIT", self.key, *which, r.raw(text), *args, *vectors.arguments(vector)))
        return bool(reply)

    def delete(self, *seqs: int, ids: Sequence[str] = ()) -> Flow[int]:
        """Removes messages by their places, or by their ids; how many there were."""
        if seqs and ids:
            raise TypeError("say places or ids")
        which: list[Argument] = ["ID", *map(r.raw, ids)] if ids else list(seqs)
        return int((yield Command(("SESSION.DEL", self.key, *which)))) if which else 0

    def pop(self, count: int = 1, *, oldest: bool = False) -> Flow[list[Message]]:
        """Removes the newest messages and returns them, newest first; or the oldest, in their order."""
        reply = yield Command(("SESSION.POP", self.key, "COUNT", count, *(["OLDEST"] if oldest else [])))
        return [Message.of(one) for one in reply]

    def touch(self, ttl: int | None = None) -> Flow[bool]:
        """Counts a use: the deadline moves to the session's ttl from now, or to `ttl`, which is kept."""
        args: list[Argument] = [] if ttl is None else ["TTL", ttl]
        return bool((yield Command(("SESSION.EXPIRE", self.key, *args))))

    def trim(self, *, maxlen: int | None = None, maxtokens: int | None = None, minseq: int | None = None) -> Flow[int]:
        """Removes the oldest messages that are not pinned; how many."""
        ways = [("MAXLEN", maxlen), ("MAXTOKENS", maxtokens), ("MINSEQ", minseq)]
        said = [(word, value) for word, value in ways if value is not None]
        if len(said) != 1:
            raise TypeError("say exactly one of maxlen, maxtokens and minseq")
        return int((yield Command(("SESSION.TRIM", self.key, *said[0]))))

    def clear(self) -> Flow[int]:
        """Removes all messages, pinned ones too; the session stays."""
        return int((yield Command(("SESSION.CLEAR", self.key))))

    def drop(self) -> Flow[bool]:
        """Removes the session."""
        return bool((yield Command(("UNLINK", self.key))))

    def compact(
        self, upto: int, summary: str | bytes, *, tokens: int | None = None, if_seq: int | None = None,
        role: str | None = None,
    ) -> Flow[tuple[int, int, int] | None]:  # fmt: skip
        """Replaces the messages up to a place by a summary: how many, and the tokens before and after."""
        args: list[Argument] = []
        for word, value in (("TOKENS", tokens), ("IFSEQ", if_seq), ("ROLE", role)):
            if value is not None:
                args += [word, value]
        reply = yield Command(("SESSION.COMPACT", self.key, "UPTO", upto, r.raw(summary), *args))
        return None if reply is None else (int(reply[0]), int(reply[1]), int(reply[2]))

    def fork(self, key: str, *, at: int | None = None) -> Flow[int]:
        """Copies the messages up to a place into a new session of the same hash slot; how many."""
        args: list[Argument] = [] if at is None else ["AT", at]
        return int((yield Command(("SESSION.FORK", self.key, key, *args))))

    # Reading.

    def window(
        self,
        *,
        tokens: int | None = None,
        last: int | None = None,
        turns: int | None = None,
        roles: Sequence[str] | None = None,
        pairs: bool = False,
    ) -> Flow[Window]:
        """The newest messages that fit, oldest first; `pairs` never parts a tool call from its results."""
        args: list[Argument] = []
        for word, value in (("TOKENS", tokens), ("LAST", last), ("TURNS", turns)):
            if value is not None:
                args += [word, value]
        args += [*_roles(roles), *(["PAIRS"] if pairs else [])]
        total, first, cut, messages = yield Command(("SESSION.WINDOW", self.key, *args))
        return Window(int(total), int(first), bool(cut), [Message.of(one) for one in messages])

    def chat(
        self, *, tokens: int | None = None, last: int | None = None, turns: int | None = None, pairs: bool = True
    ) -> Flow[list[dict[str, Any]]]:
        """The window as a chat interface takes it: dicts of `role` and `content`."""
        args: list[Argument] = []
        for word, value in (("TOKENS", tokens), ("LAST", last), ("TURNS", turns)):
            if value is not None:
                args += [word, value]
        reply = yield Command(("SESSION.WINDOW", self.key, *args, *(["PAIRS"] if pairs else []), "JSON"))
        told: list[dict[str, Any]] = json.loads(reply[3])
        return told

    def messages(
        self,
        first: int | str = "-",
        last: int | str = "+",
        *,
        count: int | None = None,
        reverse: bool = False,
        roles: Sequence[str] | None = None,
    ) -> Flow[list[Message]]:
        """Messages by their places."""
        args: list[Argument] = [] if count is None else ["COUNT", count]
        args += [*(["REV"] if reverse else []), *_roles(roles)]
        reply = yield Command(("SESSION.RANGE", self.key, first, last, *args))
        return [Message.of(one) for one in reply]

    def get(self, seq: int | None = None, *, id: str | None = None) -> Flow[Message | None]:
        """One message, by its place or its id."""
        which: list[Argument] = ["SEQ", seq] if seq is not None else ["ID", r.raw(id or "")]
        reply = yield Command(("SESSION.GET", self.key, *which))
        return None if reply is None else Message.of_map(reply)

    def count(self) -> Flow[int]:
        """How many messages there are."""
        return int((yield Command(("SESSION.LEN", self.key))))

    def info(self) -> Flow[Fields | None]:
        """What the session holds; None where there is none."""
        reply = yield Command(("SESSION.INFO", self.key))
        return None if reply is None else Fields.of(reply)

    def recall(
        self,
        query: str | Vector,
        *,
        count: int = 1,
        similarity: float | None = None,
        roles: Sequence[str] | None = None,
        around: int = 0,
    ) -> Flow[list[Recalled]]:
        """Messages by meaning, best first, with so many neighbours to either side."""
        embed = self.embed
        if not isinstance(query, str):
            asked: list[Argument] = [*vectors.blob(query)]
        elif embed is None:
            raise ValueError("a text can be recalled where the session has embed")
        elif isinstance(embed, str):
            asked = ["TEXT", query]
        else:
            asked = [*vectors.blob(cast(Vector, (yield Call(embed, (query,)))))]
        args: list[Argument] = [*asked, "COUNT", count]
        if similarity is not None:
            args += ["SIMILARITY", similarity]
        args += _roles(roles)
        if around:
            args += ["AROUND", around]
        reply = yield Command(("SESSION.RECALL", self.key, *args))
        found = []
        for row in reply:
            sides: Sequence[Any] = row[2:] or ([], [])
            before, after = ([Message.of(m) for m in side] for side in sides)
            found.append(Recalled(float(row[0]), Message.of(row[1]), before, after))
        return found

    def sessions(self, *, count: int = 100, before: float | None = None) -> Flow[list[Listed]]:
        """The sessions of this session's owner, newest first."""
        if self.owner is None:
            raise ValueError("the session has no owner")
        found: list[Listed] = []
        args: list[Argument] = [] if before is None else ["BEFORE", milliseconds(before)]
        while len(found) < count:
            reply = yield Command(("SESSION.LIST", self.owner, "COUNT", count - len(found), *args))
            # Where the server looked at as many as it does at once, it says where the list goes on.
            goes_on = int(reply.pop()[1]) if reply and reply[-1][0] is None else None
            found += [Listed(r.text(key), int(at) / 1_000, int(n), int(t)) for key, at, n, t in reply]
            if goes_on is None:
                break
            args = ["BEFORE", goes_on]
        return found

    def export(self) -> Flow[list[str]]:
        """All messages as lines of JSON."""
        return r.texts((yield Command(("SESSION.EXPORT", self.key))))

    def load(self, lines: Sequence[str]) -> Flow[int]:
        """Appends messages from lines of JSON, at most 1,024 and 512 KiB; all or none. How many."""
        return int((yield Command(("SESSION.LOAD", self.key, *map(r.raw, lines))))) if lines else 0

    # Messages that are read while they are written.

    def begin(
        self, role: str = "assistant", *, id: str | None = None, lease: float = 30.0,
        meta: Mapping[str, Any] | None = None, takeover: bool = False,
    ) -> Flow[tuple[int, bytes, int]]:  # fmt: skip
        """Begins a message: its place, the token of its producer, its length. `StreamTaken` where it has another."""
        args: list[Argument] = ["ID", r.raw(id or uuid.uuid4().hex), "LEASE", milliseconds(lease)]
        if meta is not None:
            args += ["META", json.dumps(meta, ensure_ascii=False)]
        if takeover:
            args.append("TAKEOVER")
        seq, token, offset = yield Command(("SESSION.BEGIN", self.key, role, *args))
        if token is None:
            raise StreamTaken(int(seq))
        return int(seq), token, int(offset)

    def chunk(self, seq: int, token: bytes, offset: int, data: str | bytes) -> Flow[tuple[int, bool]]:
        """Adds text at an offset: where it ends, and whether the message was stopped from outside."""
        end, stopped = yield Command(("SESSION.CHUNK", self.key, seq, token, offset, r.raw(data)))
        return int(end), bool(int(stopped))

    def end(
        self,
        seq: int,
        token: bytes,
        *,
        error: bool = False,
        tokens: int | None = None,
        meta: Mapping[str, Any] | None = None,
        cache: str | None = None,
        prompt: str | bytes | None = None,
        vector: Vector | None = None,
        cache_ttl: float | None = None,
    ) -> Flow[int]:
        """Ends a message; with `cache` and `prompt` its text is stored as an answer in the same step. Its length."""
        args: list[Argument] = ["STATUS", "ERROR" if error else "DONE"]
        if tokens is not None:
            args += ["TOKENS", tokens]
        if meta is not None:
            args += ["META", json.dumps(meta, ensure_ascii=False)]
        if cache is not None and not error:
            if prompt is None:
                raise TypeError("an answer is stored for a prompt")
            args += ["CACHE", cache, "PROMPT", r.raw(prompt), *vectors.arguments(vector), *expiry(cache_ttl)]
        _, length = yield Command(("SESSION.END", self.key, seq, token, *args))
        return int(length)

    def stop(self, seq: int | None = None, *, id: str | None = None) -> Flow[bool]:
        """Ends a message that is being written, from outside; its producer is told with its next write."""
        return bool((yield Command(("SESSION.STOP", self.key, (yield from SessionFlows.place(self, seq, id))))))

    def place(self, seq: int | None, id: str | None) -> Flow[int]:
        """The place of a message by its id."""
        if seq is not None:
            return seq
        found = yield from SessionFlows.get(self, id=id)
        if found is None:
            raise StreamGone(f"the session {self.key!r} has no message {id!r}")
        return found.seq

    def follow_once(
        self, seq: int, offset: int = 0, *, block: float = FOLLOW_SECONDS, linger: float = 0.0,
        max_bytes: int | None = None,
    ) -> Flow[Part]:  # fmt: skip
        """What a message has behind an offset, waiting for it up to `block` seconds (in pieces)."""
        args: list[Argument] = []
        if max_bytes is not None:
            args += ["MAX", max_bytes]
        until = time.monotonic() + block
        while True:
            piece = milliseconds(self._connection.uncut(max(0.0, until - time.monotonic())))
            waits = piece > 0 and self._connection.take_slot()
            blocked: list[Argument] = ["BLOCK", piece] if waits else []
            if waits and linger:
                blocked += ["LINGER", min(milliseconds(linger), piece)]
            try:
                reply = yield Command(("SESSION.FOLLOW", self.key, seq, offset, *args, *blocked), waits=bool(waits))
            finally:
                if waits:
                    self._connection.free_slot()
            if reply is None:
                raise StreamGone(f"the session {self.key!r} has no message {seq} any more")
            part = Part(reply[2], int(reply[1]), r.text(reply[0]))
            if part.data or part.status != "open" or time.monotonic() >= until:
                return part
            if not waits:
                yield Sleep(min(POLL_SECONDS, max(0.0, until - time.monotonic())))

    # The same verbs as RedisVL's MessageHistory and SemanticMessageHistory.

    def add_message(self, message: Mapping[str, Any]) -> Flow[None]:
        """As RedisVL's: appends a dict of `role` and `content`."""
        yield from SessionFlows.add_messages(self, [message])

    def add_messages(self, messages: Sequence[Mapping[str, Any]]) -> Flow[None]:
        """As RedisVL's: appends dicts of `role`, `content` and, of a tool, `tool_call_id`."""
        made = [
            Message(m["role"], m["content"], result=m.get("tool_call_id"), meta=m.get("metadata"), id=m.get("entry_id"))
            for m in messages
        ]
        yield from SessionFlows.append(self, *made)

    def store(self, prompt: str, response: str) -> Flow[None]:
        """As RedisVL's: appends a question and its answer."""
        yield from SessionFlows.append(self, user(prompt), assistant(response))

    def get_recent(self, top_k: int = 5, role: str | Sequence[str] | None = None) -> Flow[list[dict[str, Any]]]:
        """As RedisVL's: the newest messages, oldest first, as dicts of `role` and `content`."""
        roles = [role] if isinstance(role, str) else role
        found = yield from SessionFlows.messages(self, count=top_k, reverse=True, roles=roles)
        return [_row(message) for message in reversed(found)]

    def get_relevant(
        self, prompt: str | Vector, top_k: int = 5, distance_threshold: float = 0.3
    ) -> Flow[list[dict[str, Any]]]:
        """As RedisVL's: messages by meaning, best first."""
        found = yield from SessionFlows.recall(self, prompt, count=top_k, similarity=1 - distance_threshold)
        return [_row(one.message) for one in found]


def _row(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.result is not None:
        row["tool_call_id"] = message.result
    if message.meta is not None:
        row["metadata"] = message.meta
    return row
