"""The fixture of consoles; what needs a browser is collected where there is one."""

from __future__ import annotations

import os

import pytest
from consoles import HAS_BROWSER, consoles

collect_ignore = [] if HAS_BROWSER else ["test_browser.py"]
if "ENTRIES" not in os.environ:
    # Minutes on a million entries.
    collect_ignore.append("test_million.py")


@pytest.fixture
def console(server):
    """Starts consoles for this test: `console("--allow-write")`."""
    with consoles(server) as start:
        yield start
