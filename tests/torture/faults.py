"""The faults that `planted.py` puts into a copy of the sources, one at a time: each a text that must be there once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Planted:
    name: str
    file: str
    before: str
    after: str
    # What is asked for it, in this order, until one finds it: see `planted.STAGES`.
    stages: tuple[str, ...] = ("traffic", "kills", "clusters", "tests")

    def path(self, tree: Path) -> Path:
        """The file that has the text: the one named, or, where it was moved, the only one."""
        named = tree / self.file
        if named.is_file() and self.before in named.read_text():
            found = [named]
        else:
            sources = (*tree.glob("src/**/*.rs"), *tree.glob("core/src/**/*.rs"))
            found = [path for path in sources if self.before in path.read_text()]
        if len(found) != 1 or found[0].read_text().count(self.before) != 1:
            raise LookupError(f"the text of the fault {self.name!r} is not there once: plant it anew")
        return found[0]


CORE = ("fuzz", "core", "traffic")
LOOM = ("loom",)
SIMULATE = ("simulate",)

FAULTS = (
    Planted(
        "a change of a session is not replicated when it is the only one",
        "src/keyspace/sessions.rs",
        "    ctx.replicate(APPLY_COMMAND, &args);",
        "    if effects.len() > 1 {\n        ctx.replicate(APPLY_COMMAND, &args);\n    }",
    ),
    Planted(
        "a deadline that EXPIRE moved ends a session's sliding on the primary alone",
        "src/keyspace/sessions.rs",
        '    permit.replicate(APPLY_COMMAND, &[name, b"KEEP", &effect.encode()]);',
        "    let _ = permit;",
    ),
    Planted(
        "an entry is replicated without its deadline",
        "src/keyspace/entries.rs",
        'ctx.replicate(ENTRY_COMMAND, &[&name, &portable, b"PXAT", at.as_bytes()]);',
        "let _ = at;\n        ctx.replicate(ENTRY_COMMAND, &[&name, &portable]);",
    ),
    Planted(
        "a stale mark is not replicated",
        "src/keyspace/entries.rs",
        "    ctx.replicate(STALE_COMMAND, &[name]);\n",
        "    let _ = STALE_COMMAND;\n",
    ),
    Planted(
        "a deadline taken from an entry is not replicated",
        "src/keyspace/entries.rs",
        '        ctx.replicate(c"PERSIST", &[name]);\n',
        "",
    ),
    Planted(
        "a chunk that gets a follower keeps its deadline on replicas",
        "src/keyspace/chunks/store.rs",
        '            ctx.replicate(c"PERSIST", &[&name]);\n',
        "",
    ),
    Planted(
        "a session's member of its owner goes on the primary alone",
        "src/command/session/owner.rs",
        '        ctx.replicate(c"ZREM", &args);\n',
        "        let _ = &args;\n",
    ),
    Planted(
        "an invalidation is not replicated",
        "src/command/llmcache/invalidate.rs",
        "    ctx.replicate(EPOCH_COMMAND, &[key, kind.as_bytes(), name, bound.as_bytes(), severity]);",
        "    let _ = (ctx, key, kind, name, bound, severity);",
    ),
    Planted(
        "an evicted container is put back into whatever database was chosen last",
        "src/keyspace/put_back.rs",
        "        if !ctx.select_db(*db) {",
        "        if *db < 0 {",
    ),
    Planted(
        "an evicted container comes back on replicas without its deadline",
        "src/keyspace/put_back.rs",
        '            ctx.replicate(c"PEXPIREAT", &[name, evicted.expire_at_ms.to_string().as_bytes()]);\n',
        "",
    ),
    Planted(
        "a replica writes by itself: the permit does not ask for the role",
        "core/src/cluster/role.rs",
        "!self.is_loading && !self.is_replica && !self.spares_replicas",
        "!self.is_loading && !self.spares_replicas",
    ),
    Planted(
        "the walk over the keyspace does not begin again",
        "src/background/sweep.rs",
        "if wanted || (sweep.scan.is_none() && is_due(sweep.ended_at, now)) {",
        "if wanted && !is_due(sweep.ended_at, now) {",
    ),
    Planted(
        "entries of a container that was removed are left",
        "src/background/reaper.rs",
        "        count_reaped(u64::from(remove_entry_of(permit, &key, uid)));",
        "        let _ = (permit, &key, uid);",
    ),
    Planted(
        "the index keeps the row of an entry that was removed",
        "src/keytype/entry.rs",
        "                cache.index.remove(view.slot(), view.seq());\n",
        "",
    ),
    Planted(
        "the tree keeps a chunk that was removed",
        "src/keytype/chunk.rs",
        "                    namespace.tree.remove(digest);\n",
        "",
    ),
    Planted(
        "a tag of an entry is removed twice",
        "core/src/index/tags.rs",
        "            self.tags[tag as usize].slots -= 1;\n",
        "            self.tags[tag as usize].slots = self.tags[tag as usize].slots.saturating_sub(2);\n",
        CORE,
    ),
    Planted(
        "a rewritten AOF lacks a session's last messages",
        "src/keytype/session.rs",
        "        self.encode_messages(|section| args.push(RString::new(&section)));",
        "        self.encode_messages(|section| args.push(RString::new(&section)));\n        if args.len() > 2 {\n            args.pop();\n        }",
    ),
    Planted(
        "a removed session's memory is not given back",
        "src/keytype/session.rs",
        "        reclaim(session, allocations);",
        "        let _ = allocations;\n        std::mem::forget(session);",
    ),
    Planted(
        "a field may run one byte past the end",
        "core/src/codec/reader.rs",
        "if count > self.rest.len() {",
        "if count > self.rest.len() + 1 {",
        CORE,
    ),
    Planted(
        "checksums of sections are not compared",
        "core/src/codec/reader.rs",
        "if Reader::new(trailer).u32()? != crc32fast::hash(checked) {",
        "if Reader::new(trailer).u32()? == 0 && checked.is_empty() {",
        CORE,
    ),
    Planted(
        "a replicated message may have an id that is there already",
        "core/src/session/effect.rs",
        "&& (!ids.insert(id.to_vec()) || self.find_id(id).is_some())",
        "&& !ids.insert(id.to_vec())",
        CORE,
    ),
    Planted(
        "two saved entries may have one row",
        "core/src/index/slots.rs",
        "if row >= BLOCK || self.states.head(id.0).has(Head::OCCUPIED) {",
        "if row >= BLOCK {",
        CORE,
    ),
    Planted(
        "a deadline is past one millisecond late",
        "core/src/ids.rs",
        "        self.0 != 0 && self.0 <= now.0\n    }\n}\n",
        "        self.0 != 0 && self.0 < now.0\n    }\n}\n",
        CORE,
    ),
    Planted(
        "a count of links is published before the links",
        "core/src/vector/links.rs",
        "self.counts[place].store(count, Ordering::Release);",
        "self.counts[place].store(count, Ordering::Relaxed);",
        LOOM,
    ),
    Planted(
        "the head of a row is published before the row",
        "core/src/index/row_state.rs",
        "            state.expire_at.store(expire_at.0, Ordering::Release);\n            state.partition.store(partition.0, Ordering::Release);\n            state.head.store(head.0, Ordering::Release);",
        "            state.expire_at.store(expire_at.0, Ordering::Relaxed);\n            state.partition.store(partition.0, Ordering::Relaxed);\n            state.head.store(head.0, Ordering::Relaxed);",
        LOOM,
    ),
    Planted(
        "FAULTS 1.1: background work writes while writes are paused",
        "core/src/cluster/role.rs",
        "!self.is_loading && !self.is_replica && !self.spares_replicas",
        "!self.is_loading && !self.is_replica",
        SIMULATE,
    ),
    Planted(
        "FAULTS 2.1 to 2.3: what is not here counts as gone while its slot moves",
        "core/src/cluster/slots.rs",
        "if found.is_some() || is_whole() {",
        "if found.is_some() || is_whole() || true {",
        SIMULATE,
    ),
    Planted(
        "FAULTS 2.4: clients that waited are sent to the server that they came from",
        "core/src/cluster/slots.rs",
        "nodes.iter().find(|node| node.id == id)",
        "nodes.iter().find(|node| node.id != id && node.is_myself)",
        SIMULATE,
    ),
    Planted(
        "FAULTS 2.7: a container does not take over the rows of entries that came before it",
        "core/src/cache/container/mod.rs",
        "        std::mem::swap(&mut self.index, &mut other.index);\n",
        "",
        SIMULATE,
    ),
    Planted(
        "FAULTS 2.8: an entry that is stored again gets a second row",
        "core/src/index/mod.rs",
        "        self.remove_id(&new.id);\n        let id = self.rows.slots.allocate();",
        "        let id = self.rows.slots.allocate();",
        ("core", "simulate"),
    ),
    Planted(
        "an answer is stored though its tag was invalidated the moment the lease was granted",
        "core/src/cache/epochs.rs",
        "self.bounds_of(scope, tags).newest() >= since",
        "self.bounds_of(scope, tags).newest() > since",
        SIMULATE,
    ),
    Planted(
        "an open breaker lets everybody through after its first trial",
        "core/src/cache/breaker.rs",
        "            Some(_) => {\n                breaker.next_trial_ms = Some(now.0 + settings.cooldown_ms);\n",
        "            Some(_) => {\n",
        SIMULATE,
    ),
    Planted(
        "nobody is woken when the client goes that was to make an answer",
        "core/src/cache/flight/mod.rs",
        "        flight.heir = flight.waiters.pop_front();\n        let heir = flight.heir;\n        self.waiting",
        "        flight.heir = None;\n        let heir = flight.heir;\n        self.waiting",
        SIMULATE,
    ),
    Planted(
        "a lease ends a moment before its time",
        "core/src/cache/flight/pending.rs",
        "self.holder.as_ref().is_some_and(|holder| !holder.until.is_past(now))",
        "self.holder.as_ref().is_some_and(|holder| !holder.until.is_past(now.after(1)))",
        SIMULATE,
    ),
    Planted(
        "what comes while its container is being removed is taken for a part of it",
        "src/keytype/container_registry/arrivals.rs",
        "Some(row) if row.is_going() => return None,",
        "Some(row) if row.is_going() => return row.container(),",
        ("comebacks",),
    ),
)
