"""One-liners at redis-cli, as somebody tries them who has just loaded the module."""

import subprocess

import pytest


@pytest.fixture
def cli(server, redis_cli):
    """Runs redis-cli with these words, as a shell would."""

    def run(*words, options=(), stdin=None):
        done = subprocess.run(
            [redis_cli, "-p", str(server.port), *options, *map(str, words)],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_store_and_ask_again(cli):
    id_ = cli("LLMCACHE.SET", "faq", "PROMPT", "How do I reset my password?", "RESPONSE", "Use the link.").strip()
    assert len(id_) == 32
    assert cli("LLMCACHE.GET", "faq", "PROMPT", "How do I reset my password?") == b"Use the link.\n"
    assert cli("LLMCACHE.GET", "faq", "PROMPT", "How?", options=["--no-raw"]) == b"(nil)\n"


def test_vectors_by_hand(cli):
    cli("LLMCACHE.SETSEM", "faq", "PROMPT", "reset password", "RESPONSE", "Use the link.", "VALUES", 3, 0.1, 0.9, 0.2)
    lines = cli("LLMCACHE.GETSEM", "faq", "VALUES", 3, 0.12, 0.88, 0.21, "RETURN", 2, "response", "tier").splitlines()
    assert lines == [b"response", b"Use the link.", b"tier", b"semantic"]
    assert cli("LLMCACHE.GETSEM", "faq", "VALUES", 3, -1, 0, 0, options=["--no-raw"]) == b"(nil)\n"


def test_a_hit_is_readable(cli):
    cli("LLMCACHE.SET", "faq", "PROMPT", "q", "RESPONSE", "a", "TAGS", 1, "t", "META", '{"year":2024}', "EX", 60)
    text = cli("LLMCACHE.GETSEM", "faq", "PROMPT", "q", options=["--no-raw"]).decode()
    assert '"tier"' in text
    assert '"exact"' in text
    assert '"{\\"year\\":2024}"' in text


def test_resp3_shows_maps(cli):
    cli("LLMCACHE.SET", "faq", "PROMPT", "q", "RESPONSE", "a")
    text = cli("LLMCACHE.GETSEM", "faq", "PROMPT", "q", options=["-3", "--no-raw"]).decode()
    assert '1# "id" => ' in text.replace(" 1#", "1#")
    assert '"similarity" => (double) 1' in text


def test_entries_are_seen_by_scan_ttl_and_object(cli):
    cli("LLMCACHE.SET", "faq", "PROMPT", "q", "RESPONSE", "a", "EX", 60)
    assert cli("SCAN", 0, "TYPE", "llm-cache", "COUNT", 100).splitlines() == [b"0", b"faq"]
    (key,) = cli(options=["--scan", "--pattern", "{faq}*"]).splitlines()
    assert 50 <= int(cli("TTL", key.decode())) <= 60
    assert int(cli("MEMORY", "USAGE", key.decode())) > 60
    assert cli("TYPE", key.decode()) == b"llm-entry\n"


def test_a_response_from_standard_input(cli):
    cli("LLMCACHE.SET", "faq", "PROMPT", "q", "RESPONSE", options=["-x"], stdin=b"several\nlines\n")
    assert cli("LLMCACHE.GET", "faq", "PROMPT", "q") == b"several\nlines\n\n"


def test_errors_say_what_was_wrong(cli):
    assert b"wrong number of arguments" in cli("LLMCACHE.GET", "faq")
    assert cli("LLMCACHE.SET", "faq", "PROMPT", "q", "RESPONSE", "a", "TTL", 5).startswith(b"ERR ")
    assert cli("LLMCACHE.INFO", "nothing").startswith(b"NOCACHE ")
    assert cli("LLMCACHE.SETSEM", "faq", "PROMPT", "q", "RESPONSE", "a", "VALUES", 2, 0, 0).startswith(b"BADVECTOR ")


def test_a_session_of_many_lines(cli):
    script = b"\n".join(
        [
            b"LLMCACHE.CREATE faq DIM 3 THRESHOLD 0.8 TTL 3600",
            b'LLMCACHE.SETSEM faq PROMPT "a \\"quoted\\" question" RESPONSE "an answer" VALUES 3 1 2 3',
            b'LLMCACHE.GET faq PROMPT "a \\"quoted\\" question"',
            b"LLMCACHE.EXPIRE faq 00000000000000000000000000000000 EX 5",
        ]
    )
    lines = cli(stdin=script).splitlines()
    assert lines[0] == b"OK"
    assert lines[2:] == [b"an answer", b"0"]


def test_help_of_a_command_comes_from_the_server(cli):
    docs = cli("COMMAND", "DOCS", "LLMCACHE.GETSEM")
    assert b"summary" in docs
    assert b"THRESHOLD" in docs


def test_bigkeys_and_memkeys_pass_over_the_types(cli):
    cli("LLMCACHE.SETSEM", "faq", "PROMPT", "q", "RESPONSE", "a", "VALUES", 2, 1, 2)
    assert b"llm-cache" in cli(options=["--memkeys"])


def test_monitor_and_slowlog_know_the_commands(cli):
    cli("CONFIG", "SET", "slowlog-log-slower-than", 0)
    cli("LLMCACHE.SET", "faq", "PROMPT", "q", "RESPONSE", "a")
    assert b"LLMCACHE.SET" in cli("SLOWLOG", "GET", 5)
