"""Session over a real server: appending, windows, recall, changes, lists, the verbs of RedisVL."""

from __future__ import annotations

import pytest
from harness.model import models_option, write_model
from words import embed

from llmcache import Message, Session, assistant, errors, system, tool, user


def test_a_turn_of_a_chat(any_r):
    session = Session(any_r, "chat:7", ttl=60, owner="{chat:7}owner", maxtokens=1_000)
    told = session.append(
        system("Be brief.", pinned=True), user("Where is my parcel?", id="m1", tokens=5, meta={"a": [1]})
    )
    assert told is not None
    assert (told.places, told.messages, told.tokens) == ([(1, True), (2, True)], 2, 8)
    again = session.append(user("Where is my parcel?", id="m1", tokens=5, meta={"a": [1]}))
    assert again is not None
    assert again.places == [(2, False)]
    session.append(assistant(b"\xff\x00", id="m2", call="c1"), tool("sunny", "c1"))
    window = session.window(tokens=100, pairs=True)
    assert [m.role for m in window.messages] == ["system", "user", "assistant", "tool"]
    assert window.messages[2].raw == b"\xff\x00"
    assert window.messages[2].text.encode("utf-8", "surrogateescape") == b"\xff\x00"
    assert (window.messages[0].pinned, window.messages[2].call, window.messages[3].result) == (True, "c1", "c1")
    assert session.window(tokens=8, last=1).cut
    assert [m.role for m in session.window(turns=1, roles=["user"]).messages] == ["user"]
    got = session.get(id="m1")
    assert got == session.get(2)
    assert got is not None
    assert (got.meta, got.tokens, got.estimated, got.status) == ({"a": [1]}, 5, False, "whole")
    assert session.get(99) is None
    assert session.count() == 4
    info = session.info()
    assert info is not None
    assert (info.messages, info.pinned) == (4, 1)
    assert Session(any_r, "none").info() is None
    listed = session.sessions()
    assert [(one.session, one.messages) for one in listed] == [("chat:7", 4)]
    assert session.chat(last=2)[0]["role"] == "system"
    with pytest.raises(ValueError, match="owner"):
        Session(any_r, "x").sessions()
    assert 0 < any_r.ttl("chat:7") <= 60


def test_long_messages_take_several_commands(r):
    """The server takes two mebibytes in several messages; one alone may be longer."""
    session = Session(r, "c")
    told = session.append(user("a"), *(assistant(f"{n}" + "é" * (600 << 10)) for n in range(4)), user("b" * (3 << 20)))
    assert told is not None
    assert (told.places, told.messages) == ([(n + 1, True) for n in range(6)], 6)
    assert [len(m.raw) for m in session.messages()] == [1, *[1 + (1200 << 10)] * 4, 3 << 20]
    told = session.append(user("x" * (2 << 20)), user("y" * (2 << 20)), replace=True)
    assert told is not None
    assert told.messages == 2


def test_conditions(r):
    session = Session(r, "c")
    assert session.append(user("a"), xx=True) is None
    assert session.append(user("a"), nx=True) is not None
    assert session.append(user("b"), nx=True) is None
    assert session.append(user("b"), if_seq=0) is None
    assert session.append(user("b"), if_seq=1) is not None
    with pytest.raises(errors.ServerError):
        session.append(user("other", id="x"), user("text", id="x"))


def test_changes(r):
    session = Session(r, "c")
    session.append(*[user(f"m{n}", tokens=1) for n in range(1, 11)])
    assert session.edit(1, "changed", tokens=2)
    assert not session.edit(99, "x")
    assert session.delete(2, 3) == 2
    assert session.delete() == 0
    assert [m.text for m in session.pop(2)] == ["m10", "m9"]
    assert [m.text for m in session.messages(5, 7)] == ["m5", "m6", "m7"]
    assert [m.text for m in session.messages(reverse=True, count=2, roles=["user"])] == ["m8", "m7"]
    assert session.trim(maxlen=4) == 2
    with pytest.raises(TypeError, match="exactly one"):
        session.trim()
    assert session.fork("{c}2", at=6) == 2
    assert Session(r, "{c}2").count() == 2
    assert session.compact(7, "summary", tokens=3, if_seq=99) is None
    assert session.compact(7, "summary", tokens=3, role="system") == (3, 4, 4)
    summary = session.messages()[0]
    assert (summary.text, summary.summary, summary.role) == ("summary", True, "system")
    lines = session.export()
    other = Session(r, "other")
    assert other.load(lines) == 2
    assert other.load([]) == 0
    assert [m.text for m in other.messages()] == ["summary", "m8"]
    assert session.clear() == 2
    assert session.drop()
    assert not session.drop()


def test_replacing_and_taking_from_either_end(r):
    session = Session(r, "c", ttl=100)
    session.append(user("a", id="a"), user("b", id="b"), user("c", id="c"))
    told = session.append(user("B", id="b"), user("d", id="d"), upsert=True)
    assert told is not None
    assert told.places == [(2, False), (4, True)]
    assert session.edit(None, "C", id="c")
    assert session.delete(ids=["d", "none"]) == 1
    with pytest.raises(TypeError, match="places or ids"):
        session.delete(1, ids=["a"])
    assert [m.text for m in session.pop(2, oldest=True)] == ["a", "B"]
    assert session.append(user("x"), user("y"), replace=True) is not None
    assert [m.text for m in session.messages()] == ["x", "y"]
    r.expire("c", 5)
    assert session.touch(200)
    assert 190 < r.ttl("c") <= 200
    assert not Session(r, "none").touch()


def test_more_messages_than_one_command_takes(r):
    session = Session(r, "c")
    told = session.append(*[user(f"m{n}") for n in range(2_500)])
    assert told is not None
    assert (told.messages, len(told.places), told.places[-1]) == (2_500, 2_500, (2_500, True))
    assert session.messages(2_500)[0].text == "m2499"


def test_recall(any_r):
    session = Session(any_r, "c", embed=embed)
    session.append(
        user("my cat is called Tom"), assistant("nice"), user("I live in Rome"), Message("note", "not embedded")
    )
    found = session.recall("what is my cat called", count=2, around=1, roles=["user"])
    assert found[0].message.text == "my cat is called Tom"
    assert found[0].similarity > 0.5
    assert [m.text for m in found[0].after] == ["nice"]
    assert session.recall(embed("nothing of this"), similarity=0.99) == []
    with pytest.raises(ValueError, match="embed"):
        Session(any_r, "c").recall("text")


def test_a_model_of_the_server_embeds(new_fleet, tmp_path):
    option = models_option(small=write_model(tmp_path))
    r = new_fleet().launch(**{"llmcache.embed-models": option}).client()
    session = Session(r, "c", embed="small")
    session.append(user("ab cd ef"), assistant("mm nn"), Message("note", "not embedded"))
    told = session.info()
    assert told is not None
    assert (told["vectors"], str(told["model"])[:6]) == (2, "small@")
    assert [one.message.text for one in session.recall("ab cd ef?")] == ["ab cd ef"]
    assert session.edit(1, "qq rr")
    assert [one.message.text for one in session.recall("qq rr", similarity=0.9)] == ["qq rr"]


def test_the_verbs_of_redisvl(r):
    session = Session(r, "c", embed=embed)
    session.store("how are you", "well")
    session.add_message({"role": "tool", "content": "sunny", "tool_call_id": "c1", "metadata": {"x": 1}})
    session.add_messages([{"role": "user", "content": "thanks"}])
    assert session.get_recent(2) == [
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "metadata": {"x": 1}},
        {"role": "user", "content": "thanks"},
    ]
    assert session.get_recent(5, role="user") == [
        {"role": "user", "content": "how are you"},
        {"role": "user", "content": "thanks"},
    ]
    assert session.get_relevant("how are you", top_k=1) == [{"role": "user", "content": "how are you"}]
