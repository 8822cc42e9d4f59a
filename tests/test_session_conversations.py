"""Real conversations: loaded, read through windows of several budgets, exported and loaded again.

`LLMCACHE_CONVERSATIONS` names a folder of more files of the form of tests/data/conversations.jsonl.
"""

import json
import os
from pathlib import Path

import pytest
from harness.session import Session, msg

DATA = Path(__file__).resolve().parent / "data" / "conversations.jsonl"
BUDGETS = (0, 50, 400, 1_000, 4_000, 100_000)


def conversations() -> list[list[dict]]:
    more = os.environ.get("LLMCACHE_CONVERSATIONS")
    files = [DATA, *(sorted(Path(more).rglob("*.jsonl")) if more else [])]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [row[side] for row in rows for side in ("a", "b") if isinstance(row.get(side), list)]


@pytest.fixture
def server(emptied):
    return emptied


def test_conversations(server):
    client = server.client()
    talks = conversations()
    assert len(talks) >= 60 and max(map(len, talks)) > 20
    for number, talk in enumerate(talks):
        session = Session(client, f"s{number}")
        texts = [message["content"].encode() for message in talk]
        session.append(*(msg(m["role"], text, id=f"{number}:{at}") for at, (m, text) in enumerate(zip(talk, texts))))
        assert session.payloads() == texts
        tokens = [-(-len(text) // 4) for text in texts]
        for budget in BUDGETS:
            kept = 0
            while kept < len(talk) and sum(tokens[len(talk) - kept - 1 :]) <= budget:
                kept += 1
            window = session.window(tokens=budget)
            assert [m.payload for m in window.messages] == texts[len(talk) - kept :]
            assert window.tokens == sum(tokens[len(talk) - kept :])
            assert window.more == (kept < len(talk))
        for turns in (1, 3):
            users = [at for at, m in enumerate(talk) if m["role"] == "user"]
            start = users[-min(turns, len(users))]
            assert [m.payload for m in session.window(turns=turns).messages] == texts[start:]
        lines = session.export()
        assert [json.loads(line)["content"].encode() for line in lines] == texts
        copy = Session(client, "copy")
        assert copy.run("LOAD", *lines) == len(talk)
        assert copy.export() == lines
        assert copy.payloads() == texts
        client.delete("copy")
    # The files themselves load, line by line, as they are.
    plain = Session(client, "plain")
    lines = [json.dumps(message, ensure_ascii=False) for message in talks[0]]
    assert plain.run("LOAD", "\n".join(lines)) == len(lines)
    assert plain.payloads() == [message["content"].encode() for message in talks[0]]
