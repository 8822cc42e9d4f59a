"""Slots, moving slots and access control of chunks."""

import pytest
from harness.cluster import Cluster
from harness.kv import Kv, blob, digests, payload
from harness.names import key_slot
from harness.waiting import wait_until
from harness.wire import Failure

NAMES = ["ns", "a{tag}b", "vllm@llama-3.1-8b@1@0", "{x}"]


@pytest.mark.parametrize("name", NAMES)
def test_every_derived_key_is_in_the_namespaces_slot(server, name):
    kv = Kv(server.client(), name)
    kv.create()
    kv.mput(list(range(40)), [b"x"] * 10)
    kv.put_hash(b"own", b"x")
    keys = [key for key in kv.client.keys() if key != name.encode()]
    assert len(keys) == 11
    assert {key_slot(key) for key in keys} == {key_slot(name)}
    assert set(keys) >= {kv.key(digest) for digest in kv.digests(range(40))}


def test_chunks_move_with_their_slot(fleet):
    cluster = Cluster(fleet, [[(0, 8_191)], [(8_192, 16_383)]])
    name = next(f"ns{i}" for i in range(1_000) if key_slot(f"ns{i}") < 8_192)
    tokens = list(range(80))
    with cluster.client() as client:
        assert client("KVCHUNK.CREATE", name, "CHUNK", 4) == "OK"
        each = [part for i in range(20) for part in (1, payload(i, 5_000))]
        assert client("KVCHUNK.MPUT", name, "TOKENS", blob(tokens), "PAYLOADS", 20, *each) == [b"STORED"] * 20
        slot = key_slot(name)
        cluster.start_move(slot, 0, 1)
        keys = cluster.keys_in_slot(0, slot)
        assert len(keys) == 21
        cluster.move_keys(0, 1, keys[:10])
        cluster.move_keys(0, 1, keys[10:])
        cluster.end_move(slot, 1)
        wait_until(lambda: client("KVCHUNK.MATCH", name, "TOKENS", blob(tokens))[0] == 20, "all are there")
        fetched = client("KVCHUNK.FETCH", name, "TOKENS", blob(tokens))[3]
        assert [b"".join(chunk[3]) for chunk in fetched] == [payload(i, 5_000) for i in range(20)]
        assert [chunk[0].decode() for chunk in fetched] == digests(tokens, 4)
        assert client("KVCHUNK.DEL", name, digests(tokens, 4)[0], "SUBTREE") == 20
    with cluster.nodes[0].wire() as wire:
        assert wire("DBSIZE") == 0


def test_acl_checks_the_namespace(server):
    kv = Kv(server.client())
    kv.create()
    kv.put([1, 2, 3, 4], b"secret")
    with server.wire() as admin:
        assert admin("ACL", "SETUSER", "reader", "on", ">pw", "~ns", "+kvchunk.match", "+kvchunk.fetch") == "OK"
        assert admin("ACL", "SETUSER", "other", "on", ">pw", "~else", "+@all") == "OK"
    tokens = blob([1, 2, 3, 4])
    with server.wire() as wire:
        assert wire("AUTH", "reader", "pw") == "OK"
        assert wire("KVCHUNK.MATCH", "ns", "TOKENS", tokens)[0] == 1
        assert wire("KVCHUNK.FETCH", "ns", "TOKENS", tokens)[0] == 1
        for call in (("PUT", "TOKENS", tokens, "PAYLOAD", 1, "x"), ("DEL", "00"), ("GET", "00")):
            assert wire(f"KVCHUNK.{call[0]}", "ns", *call[1:]).word == "NOPERM"
    with server.wire() as wire:
        assert wire("AUTH", "other", "pw") == "OK"
        for call in (("MATCH", "TOKENS", tokens), ("FETCH", "TOKENS", tokens), ("GET", "00"), ("INFO",), ("PUT", "TOKENS", tokens, "PAYLOAD", 1, "x")):
            reply = wire(f"KVCHUNK.{call[0]}", "ns", *call[1:])
            assert isinstance(reply, Failure) and reply.word == "NOPERM", reply


def test_flags_say_what_a_command_does(server):
    with server.wire() as wire:
        listed = {name.decode().lower() for name in wire("COMMAND", "LIST", "FILTERBY", "PATTERN", "kvchunk.*")}
        reads = {"match", "fetch", "get", "missing", "find", "scan", "info", "stats", "verify", "digests", "tree"}
        stores = {"create", "put", "mput"}
        writes = {"del", "pin", "unpin", "lease", "release", "touch", "budget"}
        internal = {"_create", "_put"}
        assert listed == {f"kvchunk.{name}" for name in reads | stores | writes | internal}
        for name in listed:
            word = name.split(".")[1]
            flags = {str(flag) for flag in wire("COMMAND", "INFO", name)[0][2]}
            assert ("readonly" in flags) == (word in reads)
            assert ("denyoom" in flags) == (word in stores | internal)
            assert ("admin" in flags) == (word in internal)
