"""Messages that are read while they are written: writers, readers, a thousand of them over few connections."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

import llmcache.asyncio
from llmcache import LLMCache, Session, errors
from llmcache.asyncio import Follower


def test_what_is_written_is_read(any_r):
    session = Session(any_r, "chat", ttl=60)
    read = []

    def reader() -> None:
        with redis.Redis(port=any_r.connection_pool.connection_kwargs["port"]) as other:
            read.extend(Session(other, "chat").follow(id="a1"))

    with session.stream(id="a1", meta={"model": "m"}) as writer:
        reading = threading.Thread(target=reader)
        reading.start()
        for word in ("Hel", "lo \N{EURO SIGN}", ""):
            assert writer.write(word)
            time.sleep(0.05)
        writer.finish(tokens=2, meta={"model": "m", "stop": "end"})
    reading.join()
    assert "".join(part.text for part in read) == "Hello \N{EURO SIGN}"
    assert read[-1].status == "done"
    message = session.get(id="a1")
    assert message is not None
    assert (message.text, message.tokens, message.status, message.meta) == (
        "Hello \N{EURO SIGN}",
        2,
        "done",
        {"model": "m", "stop": "end"},
    )
    # Resumed at any byte, also after the end.
    assert "".join(part.text for part in session.follow(id="a1", offset=6)) == "\N{EURO SIGN}"


def test_a_writer_that_fails_says_so(r):
    session = Session(r, "chat")
    with pytest.raises(ValueError, match="model"), session.stream(id="a1") as writer:
        writer.write("half")
        raise ValueError("the model is out")
    parts = list(session.follow(id="a1"))
    assert (parts[-1].status, parts[0].text) == ("error", "half")


def test_a_reader_may_stop_the_writer(r):
    session = Session(r, "chat")
    with session.stream(id="a1") as writer:
        assert writer.write("a")
        assert session.stop(id="a1")
        assert not writer.write("b")
        assert writer.stopped
        assert not writer.write("c")
    assert [part.status for part in session.follow(id="a1")] == ["stopped"]
    assert not session.stop(id="a1")


def test_one_producer_at_a_time_and_another_takes_over(r):
    session = Session(r, "chat")
    seq, token, _ = session.begin(id="a1", lease=1.5)
    session.chunk(seq, token, 0, "from the first")
    with pytest.raises(errors.StreamTaken) as taken:
        session.begin(id="a1")
    assert taken.value.seq == seq
    time.sleep(2)
    assert next(session.follow(id="a1", offset=14)).status == "abandoned"
    with session.stream(id="a1", takeover=True) as writer:
        assert writer.offset == 14
        writer.write(", and the second")
    with pytest.raises(errors.LeaseLost):
        session.chunk(seq, token, 14, "late")
    assert "".join(p.text for p in session.follow(id="a1")) == "from the first, and the second"


def test_the_lease_is_renewed_while_the_model_thinks_and_text_lingers(r, loop_run):
    session = Session(r, "chat")
    with session.stream(id="a1", lease=1.2, linger=0.2) as writer:
        for letter in "abcdefgh":
            writer.write(letter)
        time.sleep(3)
        message = session.get(id="a1")
        assert message is not None
        assert (message.text, message.status) == ("abcdefgh", "open")
        writer.write("i")
    assert r.info("commandstats")["cmdstat_SESSION.CHUNK"]["calls"] < 12
    assert "".join(p.text for p in session.follow(id="a1")) == "abcdefghi"

    async def work(client):
        session = llmcache.asyncio.Session(client, "chat")
        async with session.stream(id="a2", lease=1.2, linger=0.1) as writer:
            await writer.write("x")
            await writer.write("y")
            await asyncio.sleep(3)
            found = await session.get(id="a2")
            assert found is not None
            assert (found.text, found.status) == ("xy", "open")
            await session.stop(id="a2")
            # It is told by the next renewal.
            await asyncio.sleep(1.5)
            assert not await writer.write("z")
        return [part async for part in session.follow(id="a2")]

    assert [part.text for part in loop_run(work)] == ["xy"]


def test_the_end_stores_the_answer(r):
    cache = LLMCache(r, "{chat}faq")
    with Session(r, "{chat}7").stream() as writer:
        writer.write("the answer")
        writer.finish(cache="{chat}faq", prompt="the question", vector=[1.0, 0.0], cache_ttl=60)
    assert cache.get("the question") == "the answer"


def test_a_message_that_is_gone_is_told(r):
    session = Session(r, "chat")
    with pytest.raises(errors.StreamGone):
        list(session.follow(id="none"))
    with pytest.raises(errors.StreamGone):
        session.stop(id="none")
    seq, _, _ = session.begin(id="a")
    threading.Timer(0.2, session.drop).start()
    with pytest.raises(errors.StreamGone):
        list(session.follow(seq))
    session.begin(id="b")
    with pytest.raises(TimeoutError):
        list(session.follow(id="b", timeout=0.2))


def test_a_writer_whose_server_dies_is_told(fleet, caplog):
    for own in (None, ValueError("own")):
        server = fleet.launch()
        with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
            with pytest.raises((redis.exceptions.ConnectionError, ValueError)) as told:
                with Session(client, "c").stream(id="a") as writer:
                    writer.write("a")
                    server.kill9()
                    if own:
                        raise own
                    writer.write("b")
            # An exception of the block's own is not hidden by what follows from it.
            assert own is None or told.value is own
    assert "was not ended" in caplog.text


@pytest.mark.parametrize("streams", [1, 100])
def test_a_thousand_followers_share_eight_connections(server, r, streams):
    """Each of 1,000 readers gets every byte of its message; the process has at most 8 connections for them."""
    most = []

    async def main():
        # What the follower opens has its client's name.
        named = redis.asyncio.Redis(port=server.port, client_name="readers")
        async with named as client, redis.asyncio.Redis(port=server.port) as writing:
            follower = Follower(client, connections=8)
            sessions = [llmcache.asyncio.Session(writing, f"chat:{n}") for n in range(streams)]
            begun = [await s.begin(id="a") for s in sessions]
            words = [f"word{n} " for n in range(20)]

            async def read(n: int) -> str:
                # Some come late, some resume in the middle.
                await asyncio.sleep((n % 7) * 0.1)
                parts = []
                if n % 3 == 0:
                    async for part in follower.follow(f"chat:{n % streams}", id="a"):
                        parts.append(part)
                        break
                    if parts[0].status == "done":
                        return parts[0].text
                offset = parts[0].offset if parts else 0
                parts += [p async for p in follower.follow(f"chat:{n % streams}", id="a", offset=offset)]
                assert parts[-1].status == "done"
                return "".join(p.text for p in parts)

            async def write(n: int) -> None:
                seq, token, at = begun[n]
                for word in words:
                    at, _ = await sessions[n].chunk(seq, token, at, word)
                    await asyncio.sleep(0.03 if streams > 1 else 0.06)
                await sessions[n].end(seq, token)

            async def watch() -> None:
                while True:
                    most.append(sum(one["name"] == "readers" for one in r.client_list()))
                    await asyncio.sleep(0.05)

            watching = asyncio.create_task(watch())
            reading = [asyncio.create_task(read(n)) for n in range(1_000)]
            writers = asyncio.Semaphore(20)

            async def paced(n: int) -> None:
                async with writers:
                    await write(n)

            await asyncio.gather(*(paced(n) for n in range(streams)))
            read_texts = await asyncio.gather(*reading)
            watching.cancel()
            whole = "".join(words)
            assert read_texts == [whole] * 1_000
            assert not follower._streams
            await follower.aclose()

    asyncio.run(main())
    assert 1 <= max(most) <= 8
    if streams == 1:
        # One command waits for all readers: far fewer than readers times words.
        assert r.info("commandstats")["cmdstat_SESSION.FOLLOW"]["calls"] < 400


def test_a_follower_tells_what_is_gone_and_ends(server, loop_run):
    async def work(client):
        with pytest.raises(ValueError, match="at least 2"):
            Follower(client, connections=1)
        follower, session = Follower(client), llmcache.asyncio.Session(client, "chat")
        with pytest.raises(errors.StreamGone):
            async for _ in follower.follow("chat", id="none"):
                pass
        seq, token, _ = await session.begin(id="a")
        reading = asyncio.create_task(_all(follower.follow("chat", seq)))
        await asyncio.sleep(0.1)
        await session.drop()
        with pytest.raises(errors.StreamGone):
            await reading
        seq, token, _ = await session.begin(id="a", lease=1.5)
        await session.chunk(seq, token, 0, "text")
        parts = await _all(follower.follow("chat", id="a"))
        assert [(p.text, p.status) for p in parts] == [("text", "open"), ("", "abandoned")]
        await follower.aclose()
        # asyncio's own readers, without a follower.
        seq, token, _ = await session.begin(id="b")
        with pytest.raises(TimeoutError):
            await _all(session.follow(seq, timeout=0.2))
        await session.chunk(seq, token, 0, "b")
        await session.end(seq, token, error=True)
        assert [(p.text, p.status) for p in await _all(session.follow(id="b"))] == [("b", "error")]

    loop_run(work)


async def _all(parts):
    return [part async for part in parts]


def test_a_writer_that_was_not_entered_says_so(r):
    with pytest.raises(RuntimeError, match="with"):
        Session(r, "s").stream(id="m").write("x")
    assert not r.exists("s")


def test_a_character_parted_between_two_writes_is_whole(server, r):
    parts = ["Gr", "\ud83d", "\udc4b", "\ud83d\udc4b", "", "\ud83d", "", "\udc4b and \ud83d", b"bytes", "\ud800"]
    with Session(r, "s").stream(id="m") as writer:
        for part in parts:
            writer.write(part)

    async def main():
        async with redis.asyncio.Redis(port=server.port) as aio:
            async with llmcache.asyncio.Session(aio, "s").stream(id="n") as writer:
                for part in parts:
                    await writer.write(part)

    asyncio.run(main())
    for id in ("m", "n"):
        assert Session(r, "s").get(id=id).raw == "Gr👋👋👋 and ".encode() + b"\xed\xa0\xbdbytes\xed\xa0\x80"
