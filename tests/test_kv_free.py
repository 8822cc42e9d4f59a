"""Segments of a chunk may be on their way to a client by reference, counted without atomics: the server must free a
chunk on its main thread, whatever it holds (`ChunkValue::free_effort`)."""

from __future__ import annotations

import pytest
from harness.kv import Kv, payload
from harness.waiting import wait_until

# From more than this on a server frees a value on its lazy-free thread: LAZYFREE_THRESHOLD of every supported server.
THRESHOLD = 64


@pytest.fixture
def kv(client):
    return Kv(client)


def freed_lazily(client) -> int:
    return client.info("memory")["lazyfreed_objects"]


@pytest.mark.parametrize("segments", [1, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, 500])
def test_the_main_thread_frees_a_chunk(kv, segments):
    kv.create()
    prompt = list(range(4))
    assert kv.put(prompt, [payload(number, 200) for number in range(segments)]) == "STORED"
    (key,) = kv.keys()
    before = freed_lazily(kv.client)
    assert kv.client.unlink(key) == 1
    # The server frees in order: once this list is freed elsewhere, the chunk was freed, here or there.
    kv.client.rpush("long", *[b"x" * 9_000] * (THRESHOLD + 1))
    kv.client.unlink("long")
    wait_until(lambda: freed_lazily(kv.client) > before, "the server frees the list on its thread")
    wait_until(lambda: kv.client.info("memory")["lazyfree_pending_objects"] == 0, "the thread is done")
    assert freed_lazily(kv.client) == before + 1, "the list alone"
