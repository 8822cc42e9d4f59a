"""README's `ask()` is run as it stands: hits, one generation for many, and everything that may go wrong around it."""

import re
import threading
import time
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


@pytest.fixture
def server(emptied):
    return emptied


def program(port: int, **instead) -> dict:
    """The block that defines `ask`, with another port, and other text where a test says so."""
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "def ask(" in code]
    for old, new in {"redis.Redis(": f"redis.Redis(port={port}, ", **instead}.items():
        assert old in block, old
        block = block.replace(old, new)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


def embed(question):
    return [1.0, 0.0, 0.01 * len(question)]


class Model:
    """Counts what it was asked."""

    def __init__(self, seconds=0.0, fails=False):
        self.calls, self.seconds, self.fails = 0, seconds, fails

    def __call__(self, question):
        self.calls += 1
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("overloaded")
        return "42"


def test_a_question_is_generated_once_and_hit_afterwards(server):
    ask, model = program(server.port)["ask"], Model()
    assert [ask(question, embed, model) for question in ("What is it?", "What is it?", "What is it ?")] == ["42"] * 3
    assert model.calls == 1


def test_clients_at_once_cost_one_generation(server):
    ask, model, answers = program(server.port)["ask"], Model(seconds=0.3), []
    threads = [threading.Thread(target=lambda: answers.append(ask("What is it?", embed, model))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, model.calls) == (["42"] * 8, 1)


def test_a_model_slower_than_the_wait_is_waited_for_below_the_socket_timeout(server):
    names = program(server.port, **{"3_000": "200", "protocol=3": "protocol=3, socket_timeout=2"})
    model, answers = Model(seconds=3), []
    threads = [threading.Thread(target=lambda: answers.append(names["ask"]("What is it?", embed, model))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, model.calls) == (["42"] * 3, 1)


def test_a_model_slower_than_its_lease_still_answers(server, caplog):
    ask, model = program(server.port, **{"120_000": "50"})["ask"], Model(seconds=0.2)
    assert ask("What is it?", embed, model) == "42"


def test_a_store_that_is_refused_still_answers(server, caplog):
    client = server.client()
    try:
        client.config_set("maxmemory-policy", "noeviction")
        model = Model()
        ask = program(server.port)["ask"]

        def generate(question):
            client.config_set("maxmemory", 1)
            return model(question)

        assert ask("What is it?", embed, generate) == "42"
        assert "maxmemory" in caplog.text
    finally:
        client.config_set("maxmemory", 0)


def test_a_server_that_is_gone_is_done_without(fleet, caplog):
    server = fleet.launch()
    ask, model = program(server.port)["ask"], Model()
    server.kill9()
    assert ask("What is it?", embed, model) == "42"
    assert "cache not used" in caplog.text


def test_a_failure_is_raised_and_the_next_caller_may_try(server):
    ask, model = program(server.port)["ask"], Model(fails=True)
    with pytest.raises(RuntimeError, match="overloaded"):
        ask("What is it?", embed, model)
    assert ask("What is it?", embed, Model()) == "42"
