"""What the console answers, whom it refuses, and that it reads in bounded pages."""

from __future__ import annotations

import json
import re
import signal

import pytest
from conftest import CLIENT
from harness.waiting import wait_until

from llmcache.console.store import READS, WRITES

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\x00\u202ereversed\u2028end"
ASSETS = CLIENT / "src/llmcache/console/assets"
V = ("VALUES", 2, 1, 0.5)


def near_miss(r, question="is 7 open?"):
    r.execute_command("LLMCACHE.CREATE", "faq", "NEARMISSES", 50, "MAXERROR", "0.05", "COLD", "STATIC")
    id_ = r.execute_command(
        "LLMCACHE.SETSEM", "faq", "PROMPT", "is 6 open?", "RESPONSE", "yes", *V, "TAGS", 1, "t", "COST", "0.5"
    )
    assert r.execute_command("LLMCACHE.GETSEM", "faq", "PROMPT", question, *V) is None
    return id_.decode()


# Who may ask.


def test_only_names_of_this_machine_are_answered(console):
    told = console()
    for host in ("127.0.0.1", f"localhost:{told.port}", "[::1]:80", "10.0.0.7"):
        assert told.raw("GET", "/api/session", host=host)[0] == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::1.evil.example]"):
        assert told.raw("GET", "/api/session", host=host)[0] == 421, host
    assert console("--allow-host", "cache.internal").raw("GET", "/", host="cache.internal:80")[0] == 200


def test_every_answer_forbids_other_hosts_and_frames(console):
    told = console()
    for path in ("/", "/style.css", "/api/session", "/api/cache?name=none", "/nothing"):
        headers = told.raw("GET", path)[1]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_elsewhere_than_on_the_loopback_a_token_is_needed(console):
    told = console("--host", "0.0.0.0")
    assert told.token
    assert len(told.token) >= 24
    for headers in (
        {},
        {"authorization": "Bearer x"},
        {"cookie": "llmcache_console=x"},
        {"cookie": 'a="'},
        {"authorization": "Bearer é"},
    ):
        for path in ("/", "/api/session", "/api/events", "/?token=x"):
            assert told.raw("GET", path, **headers)[0] == 401
    status, headers, _ = told.raw("GET", f"/?token={told.token}")
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]
    assert told.raw("GET", "/api/session", cookie=headers["set-cookie"].split(";")[0])[0] == 200
    assert told.raw("GET", "/api/session", authorization=f"Bearer {told.token}")[0] == 200


def test_a_form_of_another_site_changes_nothing(console, r):
    id_ = near_miss(r)
    told = console("--allow-write")
    body = json.dumps({"id": id_, "verdict": "INVALIDATE"}).encode()
    good = {"content_type": "application/json", "x_llmcache_console": "1"}
    for headers in (
        {},
        {"content_type": "application/json"},
        {**good, "content_type": "text/plain"},
        {**good, "origin": "http://evil.example"},
        {**good, "origin": "null"},
        {**good, "content_length": str(2 << 20)},
    ):
        assert told.raw("POST", "/api/judge?name=faq", body, **headers)[0] == 403, headers
    assert r.execute_command("LLMCACHE.ENTRY", "faq", id_) is not None
    assert told.raw("POST", "/api/judge?name=faq", body, **good, origin=told.base)[0] == 200
    assert r.execute_command("LLMCACHE.ENTRY", "faq", id_) is None


def test_nothing_is_written_unless_allowed(console, r):
    id_ = near_miss(r)
    told = console()
    assert told.get("session")["write"] is False
    for verdict in ("RIGHT", "WRONG", "INVALIDATE"):
        assert (
            "--allow-write"
            in told.post("judge", {"id": id_, "verdict": verdict, "number": 0}, 403, name="faq")["problem"]
        )
    assert r.execute_command("LLMCACHE.ENTRY", "faq", id_) is not None
    assert len(told.get("near-misses", name="faq")["rows"]) == 1


def test_what_it_may_send_writes_only_where_it_says_so(server):
    with server.wire() as wire:
        for name in sorted(READS | WRITES):
            flags = {str(flag) for flag in wire("COMMAND", "INFO", name)[0][2]}
            assert ("write" in flags) == (name in WRITES), name
    assert not READS & WRITES


# What pages show.


def test_overview_names_containers_and_counts(console, r):
    near_miss(r)
    r.execute_command("KVCHUNK.PUT", "ns", "HASH", "a", "PAYLOAD", 1, "x")
    told = console()
    now = told.get("overview")["now"]
    assert {(one["kind"], one["name"]) for one in now["containers"]} == {("answers", "faq"), ("chunks", "ns")}
    assert now["did"]["entries"] == 1
    assert now["role"] == "master"
    assert now["replicas"] == []


def test_samples_arrive_and_are_the_same_for_all(console, r):
    told = console()
    with told.events("/api/events") as one, told.events("/api/events") as other:
        first = next(one)
        r.execute_command("LLMCACHE.SET", "new", "PROMPT", "p", "RESPONSE", "r")
        later = next(sample for sample in one if sample["did"]["entries"] == 1)
        assert later["at"] > first["at"]
        assert next(sample for sample in other if sample["at"] >= later["at"])["did"]["entries"] == 1


def test_a_cache_with_its_histogram_and_misses(console, r):
    near_miss(r)
    told = console().get("cache", name="faq")
    assert told["reasons"]["guard"] == 1
    assert told["stats"]["misses"] == 1
    assert told["histogram"] == [[1.0, 1]] or told["histogram"][0][0] >= 0.99
    assert told["threshold"] == 0.9
    assert dict(map(tuple, told["thresholds"]))[0.9] == 1.0


@pytest.mark.parametrize(("verdict", "counter"), [("RIGHT", "opinions_right"), ("WRONG", "opinions_wrong")])
def test_a_near_miss_that_was_judged_is_gone(console, r, verdict, counter):
    near_miss(r)
    told = console("--allow-write")
    (row,) = told.get("near-misses", name="faq")["rows"]
    assert (row["question"]["text"], row["candidate"]["text"], row["guard"]) == ("is 7 open?", "is 6 open?", "number")
    assert told.post("judge", {"id": row["id"], "number": row["number"], "verdict": verdict}, name="faq") == {
        "counted": 1
    }
    assert told.get("near-misses", name="faq")["rows"] == []
    assert told.get("cache", name="faq")["stats"][counter] == 1
    near_miss(r, "is 8 open?")
    assert [row["question"]["text"] for row in told.get("near-misses", name="faq")["rows"]] == ["is 8 open?"]


def test_the_log_of_near_misses_is_off_or_forbidden(console, server, r):
    r.execute_command("LLMCACHE.CREATE", "faq")
    assert console().get("near-misses", name="faq") == {"shown": "faq", "on": 0, "feedback": False, "rows": []}
    r.execute_command("ACL", "SETUSER", "watcher", "on", ">secret", "~*", "+@all", "-llmcache.nearmisses")
    told = console(url=f"redis://watcher:secret@127.0.0.1:{server.port}").get("near-misses", name="faq")
    assert "permissions" in told["problem"]
    r.execute_command("ACL", "DELUSER", "watcher")


def test_entries_are_paged_valued_and_sampled(console, r):
    for n in range(230):
        r.execute_command(
            "LLMCACHE.SET",
            "faq",
            "PROMPT",
            f"p{n}",
            "RESPONSE",
            "r",
            "SCOPE",
            "eu" if n % 2 else "",
            "TAGS",
            1,
            "t",
            "COST",
            "0.25",
        )
    for _ in range(3):
        r.execute_command("LLMCACHE.GET", "faq", "PROMPT", "p0")
    told, seen, cursor = console(), [], 0
    while True:
        page = told.get("entries", name="faq", cursor=cursor)
        seen += [entry["prompt"]["text"] for entry in page["page"]]
        assert len(page["page"]) <= 100
        assert page["tags"] == [["t", len(page["page"])]]
        cursor = page["next"]
        if not cursor:
            break
    assert sorted(seen) == sorted(f"p{n}" for n in range(230))
    (best,) = page["valuable"]
    assert best["prompt"]["text"] == "p0"
    assert best["hits"] == 3
    assert best["saved"] == 0.75
    assert told.get("entry", name="faq", id=best["id"])["response"]["text"] == "r"


def test_a_question_is_tried(console, r):
    near_miss(r)
    told = console()
    missed = told.post("attempt", {"prompt": "is 8 open?", "vector": [1, 0.5]}, name="faq")
    assert (missed["status"], missed["reason"], missed["guard"]) == ("miss", "guard", "number")
    assert missed["guard_words"] == ["8", "6"]
    assert missed["entry"]["prompt"]["text"] == "is 6 open?"
    hit = told.post("attempt", {"prompt": "is 6 open?"}, name="faq")
    assert (hit["status"], hit["tier"], hit["entry"]["response"]["text"]) == ("hit", "exact", "yes")
    for bad in (
        {},
        {"vector": "x", "prompt": "p"},
        {"vector": [1, "x"]},
        {"vector": [1] * 20_000},
        {"vector": [1, 2, 3]},
        {"prompt": "p", "filter": "("},
    ):
        assert told.post("attempt", bad, 400, name="faq")["problem"], bad


def test_a_search_says_what_each_bound_left_out(console, r):
    for n in range(12):
        r.execute_command(
            "RAG.ADD",
            "docs",
            f"d{n:02}",
            "VALUES",
            2,
            1,
            n / 10,
            "TEXT",
            "t" * n,
            "META",
            json.dumps({"n": n}),
            "TOKENS",
            10,
        )
    told = console().post(
        "search", {"vector": [1, 0], "filter": ".n != 1", "count": 4, "similarity": 0.75, "tokens": 30}, name="docs"
    )
    assert [one["name"] for one in told["found"]] == ["d00", "d02", "d03"]
    why = {one["name"]: one["why"] for one in told["left_out"]}
    assert why["d01"] == "FILTER"
    assert why["d04"] == "over the token budget"
    assert why["d05"] == "beyond COUNT"
    assert why["d11"] == "below SIMILARITY"
    assert len(why) == 9


def test_conversations_and_their_windows(console, r):
    r.execute_command(
        "SESSION.APPEND",
        "chat:7",
        "OWNER",
        "chats",
        "MSG",
        "system",
        "Be brief.",
        "PIN",
        "MSG",
        "user",
        "x" * 400,
        "MSG",
        "user",
        "now",
    )
    told = console()
    for rows in (told.get("sessions")["rows"], told.get("sessions", owner="chats")["rows"]):
        assert [(row["name"], row["messages"]) for row in rows] == [("chat:7", 3)]
    window = told.get("window", name="chat:7", tokens=20)
    assert [message["role"] for message in window["messages"]] == ["system", "user"]
    assert window["more"]
    assert window["messages"][0]["pinned"]
    assert window["tokens"] <= 20
    assert told.raw("GET", "/api/window?name=none")[0] == 404


def test_a_message_arrives_while_it_is_written(console, r):
    seq, token, _ = r.execute_command("SESSION.BEGIN", "chat:7", "assistant")
    r.execute_command("SESSION.CHUNK", "chat:7", seq, token, 0, "Hello ")
    told = console()
    assert told.get("window", name="chat:7")["open"] == seq
    with told.events(f"/api/follow?name=chat:7&seq={seq}") as parts:
        assert next(parts)["text"] == "Hello "
        r.execute_command("SESSION.CHUNK", "chat:7", seq, token, 6, "<b>you</b>")
        assert next(parts)["text"] == "<b>you</b>"
        r.execute_command("SESSION.END", "chat:7", seq, token)
        assert list(parts)[-1]["status"] == "done"


def test_a_namespace_with_what_goes_next(console, r):
    for name, parent in (("a", None), ("b", "a"), ("c", "a")):
        r.execute_command("KVCHUNK.PUT", "ns", "HASH", name, *(("PARENT", parent) if parent else ()), "PAYLOAD", 1, "x")
    r.execute_command("KVCHUNK.TOUCH", "ns", b"b".hex())
    told = console().get("namespace", name="ns")
    assert [one["digest"] for one in told["eviction"]] == [b"c".hex(), b"b".hex(), b"a".hex()]
    assert {one["digest"]: one["parent"] for one in told["tree"]} == {
        b"a".hex(): None,
        b"b".hex(): b"a".hex(),
        b"c".hex(): b"a".hex(),
    }


@pytest.mark.parametrize("path", ["cache", "near-misses", "entries", "entry", "index", "window", "namespace", "follow"])
def test_what_is_not_there_is_said(console, path):
    told = console()
    for query in ("", "?name=none&seq=1&id=x", "?name=%FF&cursor=x&seq=x"):
        status, _, body = told.raw("GET", f"/api/{path}{query}")
        assert status in (200, 400, 404), body
        assert b"Traceback" not in body
        if status != 200:
            assert json.loads(body)["problem"]


def test_a_server_that_is_away_is_said(console, fleet):
    own = fleet.launch()
    told = console(url=f"redis://127.0.0.1:{own.port}")
    assert told.get("overview")["now"]["did"]["entries"] == 0
    with told.events("/api/events") as events:
        next(events)
        own.stop()
        assert "problem" in next(one for one in events if "problem" in one)
        own.start()
        assert next(one for one in events if "problem" not in one)["did"]


# Hostile content, and much of it.


def test_hostile_texts_are_shown_as_texts_and_cut(console, r):
    name = HOSTILE.encode() + b"\xff"
    r.execute_command("LLMCACHE.CREATE", name, "NEARMISSES", 5)
    id_ = r.execute_command(
        "LLMCACHE.SETSEM",
        name,
        "PROMPT",
        HOSTILE,
        "RESPONSE",
        HOSTILE.encode() + b"\xff" + b"\xc3\xa9" * (8 << 20),
        *V,
        "TAGS",
        1,
        HOSTILE,
    )
    r.execute_command("LLMCACHE.GETSEM", name, "PROMPT", HOSTILE + " 7", *V)
    told = console()
    (one,) = told.get("overview")["now"]["containers"]
    (entry,) = told.get("entries", name=one["name"])["page"]
    whole = told.get("entry", name=one["name"], id=entry["id"])
    tried = told.post("attempt", {"prompt": HOSTILE}, name=one["name"])
    for answer in (entry["response"], whole["response"], tried["entry"]["response"]):
        assert answer["cut"]
        assert answer["bytes"] == len(HOSTILE.encode()) + 1 + (16 << 20)
        assert len(answer["text"]) < 4_200
    seen = [one["shown"], entry["prompt"]["text"], whole["response"]["text"], *entry["tags"]]
    for text in seen:
        assert "<script>" in text
        assert "\\x1b[31m\\x00\\u202er" in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]", text)
    assert whole["response"]["text"].endswith("é")
    assert "\\xff" in whole["response"]["text"]
    assert entry["id"] == id_.decode()


def test_assets_put_texts_into_text_nodes_alone_and_ask_no_other_host():
    for file in ASSETS.iterdir():
        text = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|srcdoc", text), (
            file.name
        )
        for address in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text):
            assert address == "http://www.w3.org", (file.name, address)


def test_a_console_that_is_open_costs_the_server_little(console, server, r):
    """Many keys of others, a large cache, and a page of each kind open: bounded commands, seldom."""
    pipe = r.pipeline(transaction=False)
    for n in range(20_000):
        pipe.set(f"other:{n}", "x")
        if n % 10 == 0:
            pipe.execute_command("LLMCACHE.SET", "faq", "PROMPT", f"p{n}", "RESPONSE", "r")
    pipe.execute()
    told = console()
    with told.events("/api/events") as events:
        next(events)
        r.config_resetstat()
        for path, query in (
            ("cache", {"name": "faq"}),
            ("near-misses", {"name": "faq"}),
            ("entries", {"name": "faq"}),
            ("sessions", {}),
        ):
            told.get(path, **query)
        stats = r.info("commandstats")
        calls = {name.removeprefix("cmdstat_").lower(): row["calls"] for name, row in stats.items()}
        # A page is so many commands whatever the server holds; sessions are looked for among a few thousand keys.
        assert calls.get("scan", 0) <= 8
        assert calls["llmcache.entry"] <= 110
        assert {"keys", "dbsize", "monitor"}.isdisjoint(calls)
        first = sum(row["calls"] for row in stats.values())
        samples = [next(events) for _ in range(3)]
        assert samples[-1]["at"] - samples[0]["at"] > 2
        later = r.info("commandstats")
        asked = {name: row["calls"] for name, row in later.items()}
        # While nothing is clicked there is one INFO a sample, and this test's own.
        assert sum(asked.values()) - first <= 3 + 3 + 4, asked


def test_pages_that_are_closed_free_what_they_held(console, r):
    told = console()
    seq, *_ = r.execute_command("SESSION.BEGIN", "chat:7", "assistant")
    path = f"/api/follow?name=chat:7&seq={seq}"
    for _ in range(8):
        with told.events(path) as parts:
            next(parts)
    wait_until(lambda: told_followed(told, path), "followers are freed", 60)


def told_followed(told, path):
    with told.events(path) as parts:
        return "problem" not in next(parts)


def test_a_token_is_long_enough(console):
    with pytest.raises(AssertionError, match="at least 16"):
        console("--token", "short")
    assert console("--token", "x" * 20).raw("GET", "/")[0] == 401


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told(console, number):
    told = console()
    with told.events("/api/events") as events:
        next(events)
        told.process.send_signal(number)
        assert list(events) is not None
    said = told.process.stdout.read()
    told.process.wait(60)
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert told.process.returncode == 0
        assert said == "llmcache console: ended\n"
