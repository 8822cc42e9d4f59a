"""What counts as a use of an entry for the server's eviction: being served, and nothing else."""

import time

import pytest
from harness.cache import Cache
from harness.vectors import near, unit

WAYS = {
    "by vector alone": {"vector": near(unit(1), 0.98)},
    "by prompt and vector": {"prompt": "the first, please", "vector": near(unit(1), 0.98)},
    "through a filter": {"vector": near(unit(1), 0.98), "filter": ".n == 1"},
    "exactly": {"prompt": "first"},
    "exactly, with a vector": {"prompt": "first", "vector": unit(1)},
}


@pytest.mark.parametrize("way", WAYS)
def test_only_what_is_served_is_used(fleet, way):
    server = fleet.launch(maxmemory_policy="allkeys-lru")
    cache = Cache(server.client())
    served = cache.setsem("first", "A", unit(1), meta={"n": 1})
    seen = cache.setsem("second", "B", near(unit(1), 0.6), meta={"n": 2})
    time.sleep(2.2)
    assert cache.getsem(**WAYS[way]).id == served
    idle = {id_: cache.client.object("idletime", cache.key_of(id_)) for id_ in (served, seen)}
    # One from the other: a slow machine is idle longer.
    assert idle[seen] - idle[served] >= 2, idle
