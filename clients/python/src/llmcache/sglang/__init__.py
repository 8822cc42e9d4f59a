"""SGLang's HiCache on `KVCHUNK.*` (docs/lmcache.md#sglang): a `dynamic` storage backend.

    --hicache-storage-backend dynamic --hicache-storage-backend-extra-config '{"backend_name": "llmcache",
      "module_path": "llmcache.sglang", "class_name": "LLMCacheHiCacheStorage", "url": "redis://127.0.0.1:6379"}'

Needs SGLang in the same environment.
"""

try:
    from .storage import LLMCacheHiCacheStorage
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] in ("sglang", "torch"):
        raise ImportError("llmcache.sglang needs SGLang 0.5 or newer: pip install sglang") from error
    raise

__all__ = ["LLMCacheHiCacheStorage"]
