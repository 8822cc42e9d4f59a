"""A page that shows what the server's caches, documents, sessions and chunks do: `llmcache console redis://…`.

Reads bounded pages and samples, never all keys; writes only where started with `--allow-write`. Needs the extra
`console`.
"""
