"""Who expires what is due without being asked for it: the server's own cycle, and the module ahead of it."""

from __future__ import annotations

import redis


def set_server_cycle(client: redis.Redis, on: bool) -> None:
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", int(on))


def set_active_expire(client: redis.Redis, on: bool) -> None:
    """Both: with them off, what is due stays until it is read."""
    client.config_set("llmcache.active-expire", "yes" if on else "no")
    set_server_cycle(client, on)
