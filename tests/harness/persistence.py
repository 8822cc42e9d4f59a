"""Waiting for the server to have rewritten its append-only file."""

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
