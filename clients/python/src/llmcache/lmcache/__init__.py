"""LMCache's L2 tier on `KVCHUNK.*` (docs/lmcache.md).

    {"type": "plugin", "module_path": "llmcache.lmcache", "class_name": "LLMCacheL2Adapter",
     "adapter_params": {"url": "redis://127.0.0.1:6379"}}

Needs LMCache in the same environment (`pip install lmcache`), and torch with it.
"""

try:
    from .adapter import LLMCacheL2Adapter, LLMCacheL2AdapterConfig
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] in ("lmcache", "torch"):
        raise ImportError("llmcache.lmcache needs LMCache 0.5 or newer: pip install lmcache") from error
    raise

__all__ = ["LLMCacheL2Adapter", "LLMCacheL2AdapterConfig"]
