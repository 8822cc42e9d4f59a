"""Every redis-cli example of the README, the pages of `docs/` and the reference is typed in, and must answer what is shown.

A block fenced as `console` is one session on an empty server; `harness.transcript` says what its lines mean.
"""

import re
from pathlib import Path

import pytest
from harness.server import Server
from harness.transcript import lies, pattern, sections, sessions

ROOT = Path(__file__).resolve().parent.parent
# The README first; the reference has its sessions from docs/examples/.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.console"))


@pytest.fixture(scope="module")
def shared(server_binary, module_path, tmp_path_factory):
    server = Server(server_binary, module_path, tmp_path_factory.mktemp("examples")).start()
    yield server
    server.stop()
    server.check_log()


def test_the_readme_has_examples():
    steps = [step for session in sessions(PAGES[0].read_text()) for step in session]
    assert len(steps) >= 5, "README.md shows no redis-cli session in a ```console block"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_tell_the_truth(shared, redis_cli, page):
    told = sessions(page.read_text())
    assert all(step.expected for session in told for step in session if not step.command.startswith("#"))
    found = []
    for session in told:
        shared.client().flushall()
        found += lies(session, redis_cli, shared.port, page.name)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_reference_tells_the_truth(shared, redis_cli, file):
    found = []
    for session in sections(file.read_text()).values():
        shared.client().flushall()
        found += lies(session, redis_cli, shared.port, file.name)
    assert not found, "\n".join(found)


def test_the_acl_lines_of_operations_are_accepted(shared):
    text = (ROOT / "docs/operations.md").read_text()
    lines = [line.split() for line in text.splitlines() if line.startswith("    ACL SETUSER ")]
    assert len(lines) >= 5
    client = shared.client()
    for line in lines:
        assert client.execute_command(*line) in (True, b"OK"), line
        client.execute_command("ACL", "DELUSER", line[2])


def test_links_lead_somewhere():
    broken = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", ROOT / "ARCHITECTURE.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken, "\n".join(broken)


# The reader of the README is itself tested: a reader that sees no lie would be worse than none.

SAMPLE = """
text
```console
redis> SET a 1
OK
redis> GET a
"<anything>"
redis> LRANGE l 0 -1
1) "x"
...
3) "z"
```
```sh
redis> NOT a session
```
```console
$ make run
```
"""


def test_the_reader_finds_sessions():
    (session,) = sessions(SAMPLE)
    assert [step.command for step in session] == ["SET a 1", "GET a", "LRANGE l 0 -1"]
    assert session[0].expected == ["OK"]


@pytest.mark.parametrize(
    ("expected", "reply", "same"),
    [
        (["OK"], "OK\n", True),
        (["OK", ""], "OK\n", True),
        (["OK"], "OK\nmore\n", False),
        (["OK"], "NO\n", False),
        (['"<id>"'], '"0123"\n', True),
        (['"<id>"'], '""\n', False),
        (['1) "x"', "...", '3) "z"'], '1) "x"\n2) "y"\n3) "z"\n', True),
        (['1) "x"', "...", '3) "z"'], '1) "x"\n2) "y"\n3) "q"\n', False),
        (["(double) 0.9<...>"], "(double) 0.93123\n", True),
        (["(double) 0.9<...>"], "(double) 0.83123\n", False),
    ],
)
def test_the_reader_sees_differences(expected, reply, same):
    assert bool(pattern(expected).fullmatch(reply)) == same
