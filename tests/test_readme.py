"""Every redis-cli example of the README is typed in, and must answer what the README shows.

A block fenced as `console` is one session on a server of its own: lines after `redis> ` are typed,
the lines below are what redis-cli prints. `<...>` in them stands for any text of one line, and a line
`...` for any number of lines.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
PROMPT = "redis> "
MARK = "end of reply"


@dataclass
class Step:
    line: int
    command: str
    expected: list[str] = field(default_factory=list)


def sessions(text: str) -> list[list[Step]]:
    """The steps of each console block that talks to redis."""
    found: list[list[Step]] = []
    block: list[Step] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if block:
                found.append(block)
            block = [] if block is None and line.strip() == "```console" else None
        elif block is not None and line.startswith(PROMPT):
            block.append(Step(number, line.removeprefix(PROMPT)))
        elif block:
            block[-1].expected.append(line)
    return found


def pattern(lines: list[str]) -> re.Pattern:
    """The expected lines as an expression."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    parts = []
    for line in lines:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            literal = [re.escape(piece) for piece in re.split(r"<[^<>]*>", line.rstrip())]
            parts.append(".+?".join(literal) + r"[ ]*\n")
    return re.compile("".join(parts))


def run(session: list[Step], redis_cli: str, port: int) -> list[str]:
    """What redis-cli prints for each step, all in one session."""
    typed = "".join(f'{step.command}\nECHO "{MARK} {i}"\n' for i, step in enumerate(session))
    done = subprocess.run(
        [redis_cli, "--no-raw", "-p", str(port)],
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    replies, rest = [], done.stdout
    for i in range(len(session)):
        reply, found, rest = rest.partition(f'"{MARK} {i}"\n')
        assert found, f"redis-cli stopped at: {session[i].command}"
        # redis-cli adds how long a slow command took.
        replies.append(re.sub(r"^\(\d+\.\d+s\)\n", "", reply, flags=re.MULTILINE))
    return replies


def readme_sessions() -> list[list[Step]]:
    return sessions(README.read_text()) if README.exists() else []


def test_the_readme_has_examples():
    steps = [step for session in readme_sessions() for step in session]
    assert len(steps) >= 5, "README.md shows no redis-cli session in a ```console block"
    assert all(step.expected for step in steps if not step.command.startswith("#"))


def test_the_readme_tells_the_truth(fleet, redis_cli):
    lies = []
    for session in readme_sessions():
        server = fleet.launch()
        for step, reply in zip(session, run(session, redis_cli, server.port), strict=True):
            if not pattern(step.expected).fullmatch(reply):
                wanted = "\n".join(step.expected)
                lies.append(f"README.md line {step.line}: {step.command}\nit shows:\n{wanted}\nredis-cli prints:\n{reply}")
    assert not lies, "\n".join(lies)


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
