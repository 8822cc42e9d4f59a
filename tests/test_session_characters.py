"""Text that is read in parts is cut between characters; bytes that are no text are not looked at."""

import threading

import pytest
from harness.session import Session, Writer, msg
from harness.waiting import wait_until

TEXT = "aé€😀 naïve – 漢字 🏳️‍🌈 end€"


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def session(client):
    return Session(client)


def parts(session, seq, most):
    got, offset, status = [], 0, "open"
    while status == "open":
        status, offset, data = session.follow(seq, offset, max=most)
        assert data or status != "open"
        got.append(data)
    return got


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7, 64, 1_000])
def test_max_cuts_between_characters(session, most):
    session.say(TEXT * 5)
    got = parts(session, 1, most)
    assert "".join(part.decode() for part in got) == TEXT * 5
    assert all(len(part) <= max(most, 4) for part in got)


@pytest.mark.parametrize("opaque", [bytes(range(256)) * 3, b"\x80" * 50, b"\xff\xfe" * 40, b"\xe2\x28" * 30])
@pytest.mark.parametrize("most", [1, 5, 64])
def test_opaque_bytes_are_cut_at_max(session, opaque, most):
    session.append(msg("user", opaque))
    got = parts(session, 1, most)
    assert b"".join(got) == opaque
    if opaque[0] != 0:
        assert all(len(part) == most for part in got[:-1])


def test_half_a_character_waits_for_its_other_half(session):
    writer = Writer(session)
    euro = "€".encode()
    for data in ("ab".encode(), euro[:1]):
        writer.write(data)
    assert session.follow(writer.seq, 0) == ("open", 2, b"ab")
    assert session.follow(writer.seq, 2) == ("open", 2, b"")
    (message,) = session.range()
    assert message.payload == b"ab"
    assert session.get(writer.seq)["payload"] == b"ab"
    writer.write(euro[1:] + b"c" + euro[:2])
    assert session.follow(writer.seq, 2) == ("open", 6, euro + b"c")
    # What is removed is answered with every byte, and so is the end of a message that is none.
    session.run("END", writer.seq, writer.token)
    assert session.follow(writer.seq, 6) == ("done", 8, euro[:2])


def test_a_popped_stream_is_answered_whole(session):
    writer = Writer(session)
    writer.write("a€".encode()[:2])
    ((_, _, payload, *_),) = session.run("POP")
    assert payload == "a€".encode()[:2]


@pytest.mark.parametrize("linger", [{}, {"linger": 20}], ids=["at once", "linger"])
def test_a_blocked_reader_is_not_woken_by_half_a_character(server, linger):
    session = Session(server.client())
    writer = Writer(session)
    euro = "€".encode()
    got = []
    reader = threading.Thread(target=lambda: got.append(Session(server.client()).follow(writer.seq, 0, block=60_000, **linger)))
    reader.start()
    wait_until(lambda: server.info("clients")["blocked_clients"] == "1", "the reader waits")
    writer.write(euro[:1])
    writer.write(euro[1:2])
    reader.join(0.3)
    assert reader.is_alive() and not got
    writer.write(euro[2:])
    reader.join(60)
    assert got == [("open", 3, euro)]
