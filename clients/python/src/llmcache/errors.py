"""One exception for each word by which the server begins an error, and what follows from it.

Owns: the words, which of them are refusals (the caller may go on without the cache), which pass by themselves
(the same command may be sent again), and how an exception of redis-py or valkey-py is told. Touches no network.
"""

from __future__ import annotations

from redis import exceptions as _redis


class LlmcacheError(Exception):
    """Whatever this package raises by itself."""


class ServerError(LlmcacheError, _redis.ResponseError):
    """An error that the server answered. `word` is its first word."""

    word = "ERR"


class BadVector(ServerError):
    """The vector cannot be read: wrong length, not finite, or of norm zero."""

    word = "BADVECTOR"


class DimMismatch(ServerError):
    """The vector has another dimension than what the container holds."""

    word = "DIMMISMATCH"


class ModelMismatch(ServerError):
    """The vectors held are of another embedding model."""

    word = "MODELMISMATCH"


class NoCache(ServerError):
    """There is no such container, and nothing makes it."""

    word = "NOCACHE"


class BadFilter(ServerError):
    """The FILTER expression cannot be read; the message names the place."""

    word = "BADFILTER"


class BadTicket(ServerError):
    """The ticket is none that the cache issued."""

    word = "BADTICKET"


class TooBig(ServerError):
    """The entry is larger than its container may be."""

    word = "TOOBIG"


class LeaseLost(ServerError):
    """Somebody else has the lease, or what it was for was invalidated."""

    word = "LEASELOST"


class WrongType(ServerError):
    """The key holds something else."""

    word = "WRONGTYPE"


class CrossSlot(ServerError):
    """Keys of one command are in different hash slots."""

    word = "CROSSSLOT"


class NoPermission(ServerError):
    """The user may not do this."""

    word = "NOPERM"


class Busy(ServerError):
    """The server has no room for this now; the same command may be sent again."""

    word = "BUSY"


class TryAgain(ServerError):
    """The slot is moving; the same command may be sent again."""

    word = "TRYAGAIN"


class OutOfMemory(ServerError):
    """The server is above its maxmemory."""

    word = "OOM"


class Unavailable(ServerError):
    """The server answers, and can not serve: loading, read only, its cluster down, its disk full."""

    word = "UNAVAILABLE"


class MakingFailed(LlmcacheError):
    """Somebody else made this answer a moment ago and failed; `retry` is in seconds."""

    def __init__(self, error: str, retry: float):
        super().__init__(error or "making the answer failed a moment ago")
        self.retry = retry


class BreakerOpen(LlmcacheError):
    """Making answers of this scope fails again and again, and rests; `retry` is in seconds."""

    def __init__(self, retry: float):
        super().__init__(f"making answers of this scope fails; the next attempt is in {retry:.1f} s")
        self.retry = retry


class StreamGone(LlmcacheError):
    """There is no such message, or no such session, any more."""


class StreamTaken(LlmcacheError):
    """The message has another producer, or has ended: it may be read at `seq`."""

    def __init__(self, seq: int):
        super().__init__(f"message {seq} has another producer, or has ended")
        self.seq = seq


_BY_WORD: dict[str, type[ServerError]] = {
    kind.word: kind
    for kind in (
        BadVector, DimMismatch, ModelMismatch, NoCache, BadFilter, BadTicket, TooBig, LeaseLost,
        WrongType, CrossSlot, NoPermission, Busy, TryAgain, OutOfMemory,
    )
}  # fmt: skip
_BY_WORD |= dict.fromkeys(
    ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS", "NOAUTH", "UNBLOCKED"), Unavailable
)

# redis-py and valkey-py take the word away where they have a class of their own for it.
_BY_CLASS: dict[str, type[ServerError]] = {
    "TryAgainError": TryAgain,
    "OutOfMemoryError": OutOfMemory,
    "NoPermissionError": NoPermission,
    "ClusterCrossSlotError": CrossSlot,
    "BusyLoadingError": Unavailable,
    "ReadOnlyError": Unavailable,
    "ClusterDownError": Unavailable,
    "MasterDownError": Unavailable,
    "AuthenticationError": Unavailable,
    "AuthenticationWrongNumberOfArgsError": Unavailable,
}

REFUSALS = (Busy, TryAgain, OutOfMemory, TooBig, NoPermission, Unavailable)
"""What a cache may fail with while its caller is right: he goes on without it."""

PASSING = (Busy, TryAgain)
"""What passes by itself: nothing was changed, and the same command may be sent again."""


def _classes(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def told(error: Exception) -> Exception:
    """The exception of this package for one of redis-py or valkey-py; others as they are."""
    if isinstance(error, LlmcacheError):
        return error
    names = _classes(error)
    for name in names:
        if name in _BY_CLASS:
            return _BY_CLASS[name](str(error))
    if "ResponseError" not in names:
        return error
    text = str(error)
    word = text.split(" ", 1)[0]
    return _BY_WORD.get(word, ServerError)(text)


def is_outage(error: BaseException) -> bool:
    """Whether the server is away or refuses, as against a mistake of the caller."""
    if isinstance(error, ServerError):
        return isinstance(error, REFUSALS)
    if isinstance(error, OSError):
        return True
    names = _classes(error)
    # Both libraries' own, which derive from no common class.
    return ("RedisError" in names or "ValkeyError" in names) and (
        "ConnectionError" in names or "TimeoutError" in names or "ClusterError" in names
        or "RedisClusterException" in names or "ValkeyClusterException" in names or "SlotNotCoveredError" in names
    )  # fmt: skip
