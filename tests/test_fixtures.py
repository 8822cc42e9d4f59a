"""What former releases saved is loaded by this one, as RDB and as AOF, and answers as it did then.

`make_fixtures.py` says how the files in `fixtures/` were made. What is loaded is also saved again by this build and
loaded once more, and a replica takes it up from a primary.
"""

import json
import shutil
from pathlib import Path

import pytest
from harness.cache import Cache
from harness.families import Documents
from harness.persistence import wait_for_rewrite
from harness.waiting import wait_until
from make_fixtures import FOLDER, answers, recipe

RELEASES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def launch(fleet, folder: Path, kind: str):
    """A server that finds the files of a release where it starts."""
    server = fleet.prepare(**({"appendonly": "yes", "aof_use_rdb_preamble": "no"} if kind == "aof" else {}))
    if kind == "aof":
        shutil.copytree(folder / "appendonlydir", server.folder / "appendonlydir")
    else:
        shutil.copy(folder / "dump.rdb", server.folder)
    return server.start()


STATUS, OPEN, ABANDONED = (word.encode().hex() for word in ("status", "open", "abandoned"))


def as_told_now(recorded):
    """0.1.0 said `open` of a message whose producer's lease had expired, wherever it was not followed."""
    if not isinstance(recorded, list):
        return recorded
    told = [as_told_now(one) for one in recorded]
    return [ABANDONED if at and told[at - 1] == STATUS and one == OPEN else one for at, one in enumerate(told)]


WARM_UP = 100


def as_replayed(recorded):
    """An AOF of commands has no lookups: a warm-up that was not over begins anew."""
    if isinstance(recorded, dict) and recorded.get("warm_up_left", 0) > 0:
        return recorded | {"warm_up_left": WARM_UP}
    return recorded


def assert_as_recorded(client, release, kind):
    recorded = json.loads((FOLDER / release / "answers.json").read_text())
    questions = recipe(release).questions
    if "worded" in recipe(release).keys:
        # A rewritten AOF may bring the head of an index behind its documents.
        wait_until(lambda: not Documents(client, "worded").info()["unread_texts"], "all texts are read")
    if "nested" in recipe(release).keys:
        # Nor are entries that came first coded in one go for a container that compares other dimensions.
        entries = {"nested": 120, "narrow": 30}
        held = {"nested": Documents(client, "nested"), "narrow": Cache(client, "narrow")}
        wait_until(lambda: all(held[name].info()["vectors"] == count for name, count in entries.items()), "all are known")
    for question, wanted, given in zip(questions, recorded, answers(client, questions), strict=True):
        wanted = as_replayed(wanted) if kind == "aof" else wanted
        assert given == as_told_now(wanted), question


def test_there_are_releases():
    assert {"0.1.0", "matryoshka-1", "maxerror-1", "words-1", "words-2"} <= set(RELEASES)


@pytest.mark.parametrize("kind", ["rdb", "aof"])
@pytest.mark.parametrize("release", RELEASES)
def test_files_of_a_release_are_loaded(fleet, release, kind):
    server = launch(fleet, FOLDER / release, kind)
    client = server.client()
    assert recipe(release).keys <= {key.decode() for key in client.keys("*")}
    assert_as_recorded(client, release, kind)


@pytest.mark.parametrize("kind", ["rdb", "aof"])
@pytest.mark.parametrize("release", RELEASES)
def test_what_was_loaded_is_saved_and_loaded_again(fleet, release, kind):
    server = launch(fleet, FOLDER / release, kind)
    before = server.digest()
    if kind == "aof":
        server.client().bgrewriteaof()
        wait_for_rewrite(server.client())
    else:
        server.client().save()
    server.restart()
    assert server.digest() == before
    assert_as_recorded(server.client(), release, kind)


@pytest.mark.parametrize("release", RELEASES)
def test_a_replica_takes_up_what_was_loaded(fleet, release):
    primary = launch(fleet, FOLDER / release, "rdb")
    replica = fleet.launch()
    replica.client().replicaof("127.0.0.1", primary.port)
    wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up", "the replica is in step")
    wait_until(lambda: replica.digest() == primary.digest(), "the digests agree")
