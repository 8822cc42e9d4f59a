"""Sessions of redis-cli as documentation shows them: read, typed in, and compared.

Lines after `redis> ` are typed, the lines below are what redis-cli prints. `<...>` in them stands for any text of one
line, and a line `...` for any number of lines.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field

PROMPT = "redis> "
MARK = "end of reply"


@dataclass
class Step:
    line: int
    command: str
    expected: list[str] = field(default_factory=list)


def sessions(text: str) -> list[list[Step]]:
    """The steps of each block fenced as `console` that talks to redis."""
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


def sections(text: str) -> dict[str, list[Step]]:
    """The steps below each heading `# NAME` of a file of examples."""
    found: dict[str, list[Step]] = {}
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# "):
            steps = found[line.removeprefix("# ").strip()] = []
        elif line.startswith(PROMPT):
            steps.append(Step(number, line.removeprefix(PROMPT)))
        elif steps:
            steps[-1].expected.append(line)
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


def lies(session: list[Step], redis_cli: str, port: int, where: str) -> list[str]:
    """Where what is shown differs from what is printed."""
    found = []
    for step, reply in zip(session, run(session, redis_cli, port), strict=True):
        if not pattern(step.expected).fullmatch(reply):
            wanted = "\n".join(step.expected)
            found.append(f"{where} line {step.line}: {step.command}\nit shows:\n{wanted}\nredis-cli prints:\n{reply}")
    return found
