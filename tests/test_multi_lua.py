"""MULTI, WATCH and Lua: commands take effect as one, and nothing blocks there."""

import pytest
import redis
from harness.cache import Cache
from harness.replies import hit
from harness.vectors import fp32, unit


def test_commands_in_multi_take_effect_together(server, cache, resp):
    client = server.client(resp)
    pipe = client.pipeline(transaction=True)
    pipe.execute_command("LLMCACHE.SETSEM", "faq", "PROMPT", "a", "RESPONSE", "A", *fp32(unit(1)))
    pipe.execute_command("LLMCACHE.GETSEM", "faq", *fp32(unit(1)))
    pipe.execute_command("LLMCACHE.GET", "faq", "PROMPT", "b")
    pipe.set("plain", "x")
    stored, found, missed, plain = pipe.execute()
    assert hit(found).id.encode() == stored
    assert hit(found).response == b"A"
    assert missed is None
    assert plain


def test_a_refused_command_in_multi_leaves_the_others(server, cache):
    with server.wire() as wire:
        wire("MULTI")
        wire("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A")
        wire("LLMCACHE.SETSEM", "faq", "PROMPT", "b", "RESPONSE", "B", "VALUES", 2, 0, 0)
        replies = wire("EXEC")
        assert replies[0] is not None
        assert replies[1].word == "BADVECTOR"
    assert cache.get("a") == b"A"
    assert cache.get("b") is None


def test_wrong_arity_in_multi_aborts_it(server, cache):
    with server.wire() as wire:
        wire("MULTI")
        wire("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A")
        assert wire("LLMCACHE.INFO").word == "ERR"
        assert wire("EXEC").word == "EXECABORT"
    assert cache.client.dbsize() == 0


@pytest.mark.parametrize("change", ["store", "delete entry", "evict"])
def test_watch_sees_changes_of_the_cache(server, cache, change):
    cache.create(maxentries=5)
    ids = cache.fill(5)
    watcher = server.client()
    pipe = watcher.pipeline()
    watched = cache.key_of(ids[0]) if change != "store" else "faq"
    pipe.watch(watched)
    match change:
        case "store":
            cache.set("new", "N")
        case "delete entry":
            cache.delete(ids[0])
        case "evict":
            cache.fill(20, start=100)
    pipe.multi()
    pipe.set("plain", "x")
    with pytest.raises(redis.WatchError):
        pipe.execute()


def test_watch_is_not_troubled_by_lookups(server, cache):
    cache.fill(5)
    pipe = server.client().pipeline()
    pipe.watch("faq")
    cache.getsem(prompt="prompt 1")
    cache.getsem(vector=unit(77))
    pipe.multi()
    pipe.set("plain", "x")
    assert pipe.execute() == [True]


def test_lua_stores_and_finds(cache):
    script = """
        local id = redis.call('LLMCACHE.SETSEM', KEYS[1], 'PROMPT', 'a', 'RESPONSE', 'A', 'VALUES', 3, 1, 2, 3)
        local hit = redis.call('LLMCACHE.GETSEM', KEYS[1], 'VALUES', 3, 1, 2, 3.1)
        local miss = redis.call('LLMCACHE.GET', KEYS[1], 'PROMPT', 'b')
        return {id, hit[2], miss == false and 'miss' or 'hit'}
    """
    id_, found, missed = cache.client.eval(script, 1, "faq")
    assert id_ == found
    assert missed == b"miss"


def test_lua_of_resp3_sees_maps(cache):
    cache.setsem("a", "A", unit(1))
    script = """
        redis.setresp(3)
        local reply = redis.call('LLMCACHE.GETSEM', KEYS[1], 'PROMPT', 'a')
        return {reply.map.response, reply.map.tier}
    """
    assert cache.client.eval(script, 1, "faq") == [b"A", b"exact"]


def test_errors_reach_lua_with_their_word(cache):
    script = "return redis.pcall('LLMCACHE.SETSEM', KEYS[1], 'PROMPT', 'a', 'RESPONSE', 'A', 'VALUES', 2, 0, 0).err"
    assert cache.client.eval(script, 1, "faq").startswith(b"BADVECTOR")


def test_a_read_only_script_may_look_up_and_not_store(cache):
    cache.setsem("a", "A", unit(1))
    read = "return redis.call('LLMCACHE.GET', KEYS[1], 'PROMPT', 'a')"
    assert cache.client.eval_ro(read, 1, "faq") == b"A"
    with pytest.raises(redis.ResponseError, match="(?i)write commands are not allowed"):
        cache.client.eval_ro("return redis.call('LLMCACHE.SET', KEYS[1], 'PROMPT', 'a', 'RESPONSE', 'B')", 1, "faq")
    assert cache.get("a") == b"A"


def test_functions_can_call_the_commands(cache):
    code = """#!lua name=ask
        redis.register_function('ask', function(keys, args)
            local found = redis.call('LLMCACHE.GET', keys[1], 'PROMPT', args[1])
            if found then return found end
            redis.call('LLMCACHE.SET', keys[1], 'PROMPT', args[1], 'RESPONSE', args[2])
            return 'stored'
        end)
    """
    cache.client.function_load(code)
    assert cache.client.fcall("ask", 1, "faq", "q", "answer") == b"stored"
    assert cache.client.fcall("ask", 1, "faq", "q", "other") == b"answer"


def test_a_large_search_inside_multi_and_lua_answers_inline(cache):
    cache.fill(5_000)
    (query,) = fp32(unit(3))[1:]
    pipe = cache.client.pipeline(transaction=True)
    for _ in range(3):
        pipe.execute_command("LLMCACHE.GETSEM", "faq", "FP32", query, "THRESHOLD", -1, "COUNT", 5)
    assert [len(reply) for reply in pipe.execute()] == [5, 5, 5]
    script = "return #redis.call('LLMCACHE.GETSEM', KEYS[1], 'FP32', ARGV[1], 'THRESHOLD', -1, 'COUNT', 5)"
    assert cache.client.eval(script, 1, "faq", query) == 5


def test_other_caches_in_one_transaction(cache):
    other = Cache(cache.client, "other")
    pipe = cache.client.pipeline(transaction=True)
    for name in ("faq", "other"):
        pipe.execute_command("LLMCACHE.SET", name, "PROMPT", "p", "RESPONSE", name)
    pipe.execute()
    assert (cache.get("p"), other.get("p")) == (b"faq", b"other")
