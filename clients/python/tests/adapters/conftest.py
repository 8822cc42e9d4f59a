"""The adapters' tests need the frameworks: they run in the environment of `make suites`, and are not collected elsewhere."""

import importlib.util

NEEDED = ("langchain", "langgraph", "agents", "litellm", "llama_index", "dogpile", "prometheus_client", "opentelemetry")

collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in NEEDED) else ["test_*.py"]
