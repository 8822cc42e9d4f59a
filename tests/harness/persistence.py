"""Saving a server, and waiting for it to have rewritten its append-only file."""

from __future__ import annotations

from harness.waiting import wait_until


def wait_for_rewrite(client, seconds: float = 30.0) -> None:
    """Returns when no rewrite runs and none is due.

    Both are read from one reply: while a save runs, a rewrite is due and does not run yet.
    """

    def rewritten() -> bool:
        seen = client.info("persistence")
        return not int(seen["aof_rewrite_in_progress"]) and not int(seen["aof_rewrite_scheduled"])

    wait_until(rewritten, "the append-only file is rewritten", seconds, step=0.05)
    assert client.info("persistence")["aof_last_bgrewrite_status"] in ("ok", b"ok")


def save(client) -> None:
    """Saves, when no save in the background runs any more: a replica that links has one run."""
    wait_until(lambda: not int(client.info("persistence")["rdb_bgsave_in_progress"]), "no save is under way", 30, step=0.05)
    client.save()
