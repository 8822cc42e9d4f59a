"""Random commands on sessions against plain lists, with reloads, rewrites and a replica on the way."""

import random
from dataclasses import dataclass, replace

import pytest
import redis
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.session import Session, Window, msg

ROLES = ("user", "assistant", "tool", "system", "critic")
STEPS = 12_000


@dataclass(frozen=True)
class Plain:
    seq: int
    role: str
    payload: bytes
    tokens: int
    id: str | None = None
    pinned: bool = False


class Model:
    """A session as a list, and the same commands on both."""

    def __init__(self, name: str, seed: int):
        self.name, self.rng = name, random.Random(seed)
        self.list: list[Plain] = []
        self.next = 1
        self.open: dict[int, bytes] = {}

    def some_seq(self) -> int:
        if self.list and self.rng.random() < 0.9:
            return self.rng.choice(self.list).seq
        return self.rng.randrange(1, self.next + 3)

    def fresh(self) -> Plain:
        rng = self.rng
        payload = rng.randbytes(rng.choice((0, 5, 40, 40, 300, 9_000)))
        id_ = rng.choice((None, f"id{rng.randrange(300)}", f"{rng.randrange(300):08x}-0000-4000-8000-000000000000"))
        return Plain(0, rng.choice(ROLES), payload, rng.randrange(50), id_, rng.random() < 0.05)

    def append(self, session: Session) -> None:
        fresh = [self.fresh() for _ in range(self.rng.randrange(1, 4))]
        known = [message for message in self.list if message.id and message.seq not in self.open]
        if known and self.rng.random() < 0.2:
            fresh[0] = self.rng.choice(known)
        most = self.rng.choice((None, None, None, 60))
        arguments = [msg(m.role, m.payload, id=m.id, tokens=m.tokens, pin=m.pinned) for m in fresh]
        added: list[Plain] = []
        outcomes, clash = [], False
        for message in fresh:
            same = [m for m in self.list + added if m.id and m.id == message.id]
            if not same:
                added.append(replace(message, seq=self.next + len(added)))
                outcomes.append([added[-1].seq, 1])
            elif (same[0].role, same[0].payload) == (message.role, message.payload) and same[0].seq not in self.open:
                outcomes.append([same[0].seq, 0])
            else:
                clash = True
        if clash:
            with pytest.raises(redis.ResponseError, match="says something else"):
                session.append(*arguments, maxlen=most)
            return
        reply = session.append(*arguments, maxlen=most)
        self.list += added
        self.next += len(added)
        if added and most is not None:
            self.cut(lambda: len(self.list) > most)
        assert reply == [*outcomes, len(self.list), sum(m.tokens for m in self.list)]

    def cut(self, over) -> int:
        removed = 0
        while over() and (oldest := next((m for m in self.list if not m.pinned), None)):
            self.list.remove(oldest)
            self.open.pop(oldest.seq, None)
            removed += 1
        return removed

    def drop(self, seqs) -> int:
        before = len(self.list)
        self.list = [m for m in self.list if m.seq not in seqs]
        self.open = {seq: token for seq, token in self.open.items() if seq not in seqs}
        return before - len(self.list)

    def trim(self, session: Session) -> None:
        most = self.rng.randrange(10, 80)
        if self.rng.random() < 0.5:
            assert session.run("TRIM", "MAXLEN", most) == self.cut(lambda: len(self.list) > most)
        else:
            over = lambda: sum(m.tokens for m in self.list) > most * 25  # noqa: E731
            assert session.run("TRIM", "MAXTOKENS", most * 25) == self.cut(over)

    def delete(self, session: Session) -> None:
        seqs = {self.some_seq() for _ in range(self.rng.randrange(1, 4))}
        assert session.run("DEL", *seqs) == self.drop(seqs)

    def pop(self, session: Session) -> None:
        count = self.rng.randrange(1, 3)
        newest = self.list[::-1][:count]
        assert [m[0] for m in session.run("POP", "COUNT", count)] == [m.seq for m in newest]
        self.drop({m.seq for m in newest})

    def edit(self, session: Session) -> None:
        seq, payload, tokens = self.some_seq(), self.rng.randbytes(self.rng.randrange(200)), self.rng.randrange(50)
        if seq in self.open:
            with pytest.raises(redis.ResponseError, match="still being written"):
                session.run("EDIT", seq, payload)
            return
        found = [at for at, m in enumerate(self.list) if m.seq == seq]
        assert session.run("EDIT", seq, payload, "TOKENS", tokens) == len(found)
        for at in found:
            self.list[at] = replace(self.list[at], payload=payload, tokens=tokens)

    def compact(self, session: Session) -> None:
        upto = self.some_seq()
        if any(seq <= upto for seq in self.open):
            with pytest.raises(redis.ResponseError, match="still being written"):
                session.run("COMPACT", "UPTO", upto, "short")
            return
        before = sum(m.tokens for m in self.list)
        doomed = [m for m in self.list if m.seq <= upto and not m.pinned]
        reply = session.run("COMPACT", "UPTO", upto, "short", "TOKENS", 2)
        if doomed:
            summary = Plain(doomed[-1].seq, "system", b"short", 2)
            self.list = sorted([m for m in self.list if m not in doomed] + [summary], key=lambda m: m.seq)
        assert reply == [len(doomed), before, sum(m.tokens for m in self.list)]

    def stream(self, session: Session) -> None:
        if not self.open or self.rng.random() < 0.2:
            if len(self.open) < 10:
                seq, token, offset = session.begin()
                assert (seq, offset) == (self.next, 0)
                self.list.append(Plain(seq, "assistant", b"", 0))
                self.open[seq] = token
                self.next += 1
            return
        seq = self.rng.choice(list(self.open))
        (at,) = [at for at, m in enumerate(self.list) if m.seq == seq]
        message, token = self.list[at], self.open[seq]
        kind = self.rng.random()
        if kind < 0.7:
            data = self.rng.randbytes(self.rng.randrange(100))
            end = len(message.payload) + len(data)
            assert session.run("CHUNK", seq, token, len(message.payload), data) == [end, 0]
            self.list[at] = replace(message, payload=message.payload + data)
        elif kind < 0.9:
            assert session.run("END", seq, token, "TOKENS", 7) == [seq, len(message.payload)]
            self.list[at] = replace(message, tokens=7)
            del self.open[seq]
        else:
            assert session.run("STOP", seq) == 1
            self.list[at] = replace(message, tokens=-(-len(message.payload) // 4))
            del self.open[seq]

    def window(self, session: Session) -> None:
        budget, last = self.rng.choice((None, 300, 1_000)), self.rng.choice((None, 20))
        fits = lambda tokens, count: (budget is None or tokens <= budget) and (last is None or count <= last)  # noqa: E731
        tokens, seqs, first, more = 0, [], 0, False
        for pin in (m for m in self.list[::-1] if m.pinned):
            if not fits(tokens + pin.tokens, len(seqs) + 1):
                more = True
                break
            tokens, seqs = tokens + pin.tokens, [*seqs, pin.seq]
        for message in () if more else self.list[::-1]:
            if message.pinned or message.seq in self.open:
                continue
            if not fits(tokens + message.tokens, len(seqs) + 1):
                more = True
                break
            tokens, seqs, first = tokens + message.tokens, [*seqs, message.seq], message.seq
        window: Window = session.window(tokens=budget, last=last)
        assert (window.tokens, window.first, window.more, window.seqs) == (tokens, first, more, sorted(seqs))

    def step(self, session: Session) -> None:
        kinds = (self.append, self.trim, self.delete, self.pop, self.edit, self.compact, self.stream, self.window)
        self.rng.choices(kinds, weights=(40, 3, 5, 4, 6, 1, 20, 20))[0](session)

    def compare(self, session: Session) -> None:
        seen = [(m.seq, m.role, m.payload, m.tokens) for m in session.range()]
        assert seen == [(m.seq, m.role, m.payload, m.tokens) for m in self.list]
        assert session.run("LEN") == len(self.list)
        info = session.info()
        assert (info["tokens"], info["open"]) == (sum(m.tokens for m in self.list), len(self.open))


def test_sessions_are_lists(fleet):
    both = pair(fleet, appendonly="yes", appendfsync="no", aof_use_rdb_preamble="no", save="")
    models = [Model(f"s{seed}", seed) for seed in range(3)]

    def sessions(server):
        client = server.client()
        return [Session(client, model.name) for model in models]

    own = sessions(both.primary)
    rng = random.Random(9)
    for step in range(STEPS):
        which = rng.randrange(len(models))
        models[which].step(own[which])
        if step % 1_500 != 1_499:
            continue
        for model, session in zip(models, own):
            model.compare(session)
        both.assert_equal()
        for model, session in zip(models, sessions(both.replica)):
            model.compare(session)
        match (step // 1_500) % 3:
            case 0:
                # What was appended since the start, played back.
                own[0].client.execute_command("DEBUG", "LOADAOF")
            case 1:
                client = own[0].client
                client.bgrewriteaof()
                wait_for_rewrite(client)
                client.execute_command("DEBUG", "LOADAOF")
            case 2:
                own[0].client.execute_command("DEBUG", "RELOAD")
        for model, session in zip(models, own):
            model.compare(session)
        both.assert_equal()
