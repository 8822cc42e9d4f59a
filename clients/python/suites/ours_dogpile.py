"""dogpile.cache's public fixtures (`dogpile.testing`) over llmcache. Only the backend is named here."""

import os

from dogpile.testing.fixtures import _GenericBackendTestSuite, _GenericMutexTestSuite, _GenericSerializerTestSuite

import llmcache.integrations.dogpile  # noqa: F401 - registers the backend

URL = f"redis://127.0.0.1:{os.environ['SUITE_PORT']}"


class _Of:
    backend = "llmcache"
    config_args = {"arguments": {"url": URL, "lock_timeout": 30}}


class TestBackend(_Of, _GenericBackendTestSuite):
    pass


class TestSerializer(_Of, _GenericSerializerTestSuite, _GenericBackendTestSuite):
    pass


class TestMutex(_Of, _GenericMutexTestSuite):
    pass
