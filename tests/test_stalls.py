"""How long each command with its worst arguments keeps other clients waiting.

Counts gate first: `test_cost.py` holds each command to the steps that its page states. Here a PING goes beside each
command of the table. What is judged is what the server's own thread took of the longest PING beyond what it takes to
read as many arguments (the same bytes sent to a command that refuses them), so that neither a busy machine nor a slow
one decides: the bound is some ten times what was measured, and `make bench ONLY=stalls` prints the figures.
"""

from __future__ import annotations

from harness.prober import Prober
from harness.wire import Failure, encode
from harness.worst import LARGE, World, worst

# Of the server's own time, beyond reading the arguments and the longest PING of an idle server.
BOUND_MS = 200


def test_no_command_holds_up_the_others(server):
    with server.wire(timeout=170) as wire, Prober(server.port, server.pid) as prober:
        known = {name.decode().upper() for name in wire("COMMAND", "LIST", "FILTERBY", "MODULE", "llmcache")}
        commands = worst(World(wire, LARGE))
        public = {name for name in known if "._" not in name}
        assert public == {name for name, _ in commands}, "a command has no worst arguments in harness/worst.py"
        idle = max(prober.beside(wire, encode(["ECHO", "x"])).own_ms for _ in range(3))
        slow = []
        for name, arguments in commands:
            reading = prober.beside(wire, encode(["OBJECT", *arguments]))
            assert reading.refusal is not None
            stall = prober.beside(wire, encode([name, *arguments]))
            over = stall.own_ms - idle - reading.own_ms
            if over > BOUND_MS:
                slow.append(f"{name}: {stall.own_ms:.1f} ms (reading {reading.own_ms:.1f}, idle {idle:.1f})")
            assert stall.refusal is None or stall.refusal.split()[0] in {"TOOBIG", "LEASELOST"}, (name, stall.refusal)
        assert not slow, slow


def test_what_cannot_be_sliced_is_refused(server):
    """In MULTI and scripts nothing can wait: more things than `UNBLOCKABLE_PIECES_MAX` are refused, with no effect."""
    chunks = 8_200
    with server.wire() as wire:
        wire("KVCHUNK.CREATE", "ns", "CHUNK", 1)
        prompt = b"".join(at.to_bytes(4, "little") for at in range(chunks))
        ids = [f"d{at}" for at in range(chunks)]
        asked = [
            ("KVCHUNK.MATCH", "ns", "TOKENS", prompt),
            ("KVCHUNK.FETCH", "ns", "TOKENS", prompt),
            ("KVCHUNK.MISSING", "ns", "TOKENS", prompt),
            ("KVCHUNK.DIGESTS", "ns", "TOKENS", prompt),
            ("KVCHUNK.MPUT", "ns", "TOKENS", prompt, "PAYLOADS", chunks, *[1, "x"] * chunks),
        ]
        wire("RAG.ADD", "docs", "d1", "VALUES", 1, 1, "TEXT", "t")
        wire("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", 1)
        asked += [("RAG.DEL", "docs", *ids)]
        texts = ["TEXTS", chunks, *ids]
        asked += [("EMBCACHE.MGET", "emb", *texts), ("EMBCACHE.MGETEX", "emb", *texts, "EX", 9), ("EMBCACHE.DEL", "emb", *texts)]
        # Long vectors are as good as several things.
        wide = [part for at in range(1_000) for part in ("TEXT", f"t{at}", "FP32", b"\0\0\x80?" * 16_384)]
        asked += [("EMBCACHE.MSET", "wide", 1_000, *wide, "MODEL", "m")]
        for command in asked:
            wire("MULTI")
            wire(*command)
            (reply,) = wire("EXEC")
            assert isinstance(reply, Failure) and reply.word == "BUSY", (command[0], reply)
            script = "return redis.pcall(unpack(ARGV))" if len(command) < 100 else None
            if script:
                reply = wire("EVAL", script, 1, command[1], *command)
                assert isinstance(reply, Failure) and "BUSY" in reply.text, (command[0], reply)
        assert wire("KVCHUNK.MATCH", "ns", "TOKENS", prompt[:4])[0] == 0, "MPUT had no effect"
        assert wire("RAG.GET", "docs", "d1") is not None
        # By itself the same command is done.
        assert wire(*asked[4]) == [b"STORED"] * chunks
        assert wire(*asked[0])[0] == chunks
        assert wire(*asked[5]) == 1
