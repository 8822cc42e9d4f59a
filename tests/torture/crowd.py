"""Ten thousand connections, most of them slow or dead: idle, in the midst of a command, waiting, gone without a word, or
not reading what they asked for. Others are served meanwhile, who waits is answered, and all of it ends with them.
"""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

from harness.server import Fleet, Server, settle_below, settle_memory
from harness.waiting import wait_until
from harness.wire import Argument, Failure, Wire, encode

CONNECTIONS = 10_000
# Questions that clients wait for; the first to ask each is to make the answer.
QUESTIONS = 50
# One that does not read leaves this much with the server.
UNREAD_REPLIES = 20
ANSWER = "x" * 16_000
# For a server on a machine that does much else; a stall of the module would be far longer.
REPLY_SECONDS = 120.0
# Most waits are longer than a round, so that they end by an answer.
WAIT_MS = 600_000
MEMORY_KEPT_BYTES = 6_000_000
# A reset instead of an orderly end.
ABORT = struct.pack("ii", 1, 0)


class Unserved(AssertionError):
    """Somebody was not answered, or wrongly, or something was left of those who went."""


class Crowd:
    """Rounds of one server: a crowd comes, does what it does, and goes."""

    def __init__(self, fleet: Fleet, seed: int, connections: int = CONNECTIONS):
        self.fleet = fleet
        self.seed = seed
        self.connections = connections
        self.rounds = self.came = self.asked = self.answered = 0
        self.what: Counter[str] = Counter()

    @property
    def figures(self) -> dict[str, int]:
        return {"connections": self.came, "replies beside them": self.asked, "waiting clients answered": self.answered}

    def report(self) -> str:
        return f"what connections did: {dict(self.what)}"

    def run(self, seconds: float) -> None:
        self.rng = random.Random(self.seed)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = hard if hard != resource.RLIM_INFINITY else 1 << 16
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, CONNECTIONS + 1_000)), hard))
        connections = min(self.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 300)
        server = self.fleet.launch(maxclients=CONNECTIONS + 100, save="")
        end = time.monotonic() + seconds
        # What a server allocates for its first crowd is no leak.
        self._round(server, connections // 10)
        kept = settle_memory(server, REPLY_SECONDS)
        while not self.rounds or time.monotonic() < end:
            self._round(server, connections)
            self.rounds += 1
        if (left := settle_below(server, kept + MEMORY_KEPT_BYTES, REPLY_SECONDS) - kept) > MEMORY_KEPT_BYTES:
            raise Unserved(f"{left} bytes are left of connections that ended")

    def _round(self, server: Server, connections: int) -> None:
        with server.wire(timeout=REPLY_SECONDS) as witness, contextlib.ExitStack() as stack:
            self._ask(witness, "LLMCACHE.SETSEM", "faq", "PROMPT", "long", "RESPONSE", ANSWER)
            self._ask(witness, "SESSION.APPEND", "talk", "MSG", "user", "hello")
            waiting: dict[int, list[socket.socket]] = {}
            slow: list[Iterator[None]] = []
            for number in range(connections):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=REPLY_SECONDS))
                act = self.rng.choice(self._acts(number, client, waiting, slow))
                self.what[act.__name__] += 1
                act()
                if number % 100 == 0:
                    self._witness(witness, number)
                    # Each of the slow sends one byte more.
                    slow = [one for one in slow if next(one, "over") != "over"]
            self.came += connections
            # They end what they began: their commands are as good as those sent at once.
            for one in slow:
                for _ in one:
                    pass
            self._answer(witness, waiting)
        with server.wire() as wire:
            wait_until(lambda: self._alone(wire), "the server has noticed that all are gone", REPLY_SECONDS)
            wire("FLUSHALL")

    def _acts(
        self,
        number: int,
        client: socket.socket,
        waiting: dict[int, list[socket.socket]],
        slow: list[Iterator[None]],
    ) -> list[Callable[[], None]]:
        """What one connection may do; some come more often than others."""
        question = self.rng.randrange(QUESTIONS)
        fetch = encode(["LLMCACHE.FETCH", "faq", "PROMPT", f"q{question}", "WAIT", WAIT_MS, "LEASE", WAIT_MS])

        def idle() -> None: ...

        def half() -> None:
            client.sendall(fetch[: self.rng.randrange(1, len(fetch))])

        def waits() -> None:
            client.sendall(fetch)
            waiting.setdefault(question, []).append(client)

        def goes() -> None:
            client.sendall(fetch)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            client.close()

        def follows() -> None:
            client.sendall(encode(["SESSION.FOLLOW", "talk", "BLOCK", WAIT_MS]))

        def reads_nothing() -> None:
            client.sendall(encode(["LLMCACHE.GET", "faq", "PROMPT", "long"]) * UNREAD_REPLIES)

        def is_slow() -> None:
            slow.append(self._byte_by_byte(client, number))

        often = [idle, half, waits, waits, goes, goes, follows]
        return often if number % 50 else [reads_nothing, is_slow]

    def _byte_by_byte(self, client: socket.socket, number: int) -> Iterator[None]:
        command = encode(["LLMCACHE.SETSEM", "faq", "PROMPT", f"slow{number}", "RESPONSE", "s"])
        for at in range(len(command)):
            client.sendall(command[at : at + 1])
            yield
        reply = client.recv(100)
        if not reply.startswith(b"$"):
            raise Unserved(f"a command that was sent slowly is answered {reply!r}")

    def _ask(self, witness: Wire, *words: Argument) -> object:
        self.asked += 1
        reply = witness(*words)
        if isinstance(reply, Failure):
            raise Unserved(f"{words[0]!r}: {reply.text}")
        return reply

    def _witness(self, witness: Wire, number: int) -> None:
        """Somebody who behaves is answered, and rightly."""
        self._ask(witness, "LLMCACHE.SETSEM", "faq", "PROMPT", "other", "RESPONSE", f"v{number}")
        if f"v{number}".encode() not in repr(self._ask(witness, "LLMCACHE.GET", "faq", "PROMPT", "other")).encode():
            raise Unserved(f"v{number} was stored and is not returned")

    def _answer(self, witness: Wire, waiting: dict[int, list[socket.socket]]) -> None:
        """Each question is answered, and so is everybody who waits for it; the first of them may have been told to make it."""
        for question, clients in waiting.items():
            self._ask(witness, "LLMCACHE.SETSEM", "faq", "PROMPT", f"q{question}", "RESPONSE", f"answer {question};")
            for client in clients:
                try:
                    told = repr(Wire.over(client).read())
                except TimeoutError as late:
                    raise Unserved(f"a client waits for question {question}, which is answered") from late
                except ConnectionError as gone:
                    raise Unserved(f"a client that waits was sent away: {gone}") from gone
                if "HIT" in told and f"answer {question};" not in told:
                    raise Unserved(f"a client that waits for question {question} is told {told}")
                if not any(word in told for word in ("HIT", "LEAD", "BUSY")):
                    raise Unserved(f"a client that waits is told {told}")
                self.answered += 1

    def _alone(self, wire: Wire) -> bool:
        info = wire("INFO", "clients").decode()
        told = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        return told["connected_clients"] == "1" and told["blocked_clients"] == "0"
