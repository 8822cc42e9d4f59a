"""A service with a cache of answers, a chat that streams and can be resumed, and embeddings that are computed once.

pip install llmcache-client fastapi uvicorn
uvicorn fastapi_app:app
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from llmcache import Answer, Context, user
from llmcache.asyncio import EmbeddingCache, Follower, LLMCache, Session

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
running: set[asyncio.Task[None]] = set()


async def model(question: str) -> AsyncIterator[str]:
    """Stands for your model: put its client here."""
    for word in f"You asked: {question}".split(" "):
        await asyncio.sleep(0.01)
        yield word + " "


async def embedding(texts: list[str]) -> list[list[float]]:
    """Stands for your embedding model."""
    return [[byte / 255 for byte in hashlib.sha256(text.encode()).digest()] for text in texts]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    client = redis.asyncio.from_url(URL)
    app.state.client = client
    app.state.cache = LLMCache(client, "answers", context=Context(model="demo", system="Be brief."), ttl=3600)
    app.state.embeddings = EmbeddingCache(client, "embeddings", model="demo")
    app.state.follower = Follower(client)
    yield
    await app.state.follower.aclose()
    await client.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/answer")
async def answer(question: str, tenant: str = "") -> dict[str, str]:
    async def make() -> Answer:
        return Answer("".join([part async for part in model(question)]).strip(), tokens=20)

    return {"answer": await app.state.cache.get_or_make(question, make, scope=tenant)}


@app.post("/chat/{chat}")
async def ask(chat: str, question: str) -> dict[str, str]:
    """Begins an answer, which goes on whether anybody reads it or not; `/chat/{chat}/{id}` reads it."""
    session = Session(app.state.client, f"chat:{chat}", ttl=86400)
    told = await session.append(user(question))
    assert told is not None
    id = f"answer-{told.places[0][0]}"
    began = asyncio.Event()

    async def write() -> None:
        async with session.stream(id=id, linger=0.05) as writer:
            began.set()
            async for part in model(question):
                if not await writer.write(part):
                    break

    task = asyncio.create_task(write())
    running.add(task)
    task.add_done_callback(running.discard)
    await began.wait()
    return {"id": id}


@app.get("/chat/{chat}/{id}")
async def read(chat: str, id: str, offset: int = 0) -> StreamingResponse:
    """The answer from a byte on, as it is written: a reader that was cut off asks again from where it was."""

    async def parts() -> AsyncIterator[bytes]:
        async for part in app.state.follower.follow(f"chat:{chat}", id=id, offset=offset):
            yield part.data

    return StreamingResponse(parts(), media_type="text/plain")


@app.post("/chat/{chat}/{id}/stop")
async def stop(chat: str, id: str) -> dict[str, bool]:
    return {"stopped": await Session(app.state.client, f"chat:{chat}").stop(id=id)}


@app.get("/chat/{chat}")
async def history(chat: str, tokens: int = 4000) -> list[dict[str, str]]:
    return await Session(app.state.client, f"chat:{chat}").chat(tokens=tokens)


@app.post("/embeddings")
async def embed(texts: list[str]) -> list[list[float]]:
    found = await app.state.embeddings.embed_many(texts, embedding)
    return [list(vector) for vector in found]
