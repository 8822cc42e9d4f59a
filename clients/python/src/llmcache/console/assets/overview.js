// Overview: the whole server, as it goes on.
import { bytes, count, empty, h, keeping, percent, problem, put, span, stats, usd } from "./dom.js";
import { bars, legend, lines } from "./charts.js";
import { live, watch } from "./live.js";

const KINDS = [["answers", "Answers", "c1", "#/cache/"], ["documents", "Documents", "c2", "#/documents/"], ["embeddings", "Embeddings", "c4", null], ["chunks", "KV chunks", "c3", "#/kv/"]];
const SPANS = [["5 min", 300], ["30 min", 1800]];
let seconds = 300;

/** Rates between samples: how much of `field` was counted a second. */
function rates(samples, field) {
  return samples.map((one, at) => {
    const before = samples[at - 1];
    const more = before ? one.did[field] - before.did[field] : 0;
    return before && one.at > before.at && more >= 0 ? more / (one.at - before.at) : null;
  });
}

function ratios(samples, of) {
  return samples.map((one, at) => {
    const before = samples[Math.max(0, at - 5)];
    const asked = before ? one.did.lookups - before.did.lookups : 0;
    return at && asked > 0 ? (one.did[of] - before.did[of]) / asked : null;
  });
}

const card = (wide, title, sub, ...children) => h("section", { class: `card ${wide}` }, h("h2", {}, title), sub ? h("p", { class: "sub" }, sub) : null, ...children);

function memory(now) {
  const rows = now.containers.slice(0, 12).map((one) => {
    const [, , , link] = KINDS.find(([kind]) => kind === one.kind);
    const name = link && one.db === live.session.db ? h("a", { href: link + encodeURIComponent(one.name) }, one.shown) : one.shown;
    return [h("span", {}, name, h("span", { class: "soft" }, `  ${one.kind}${one.db === live.session.db ? "" : `, db ${one.db}`}`)), one.bytes, `${bytes(one.bytes)} · ${count(one.entries)}`];
  });
  const all = now.did.caches + now.did.document_indexes + now.did.embedding_caches + now.did.namespaces;
  return card("w6", "Memory by container", `${count(all)} containers; the server uses ${bytes(now.used_memory)}${now.maxmemory ? ` of ${bytes(now.maxmemory)}` : ", without a limit"}`,
    rows.length ? bars(rows, Math.max(...rows.map(([, n]) => n), 1)) : h("p", { class: "note" }, "None yet."),
    all > now.containers.length ? h("p", { class: "note" }, `The first ${now.containers.length} are named by INFO; the rest is in the sums.`) : null);
}

function replication(now) {
  const rows = now.replicas.map((one) => h("tr", {}, h("td", { class: "mono" }, one.address), h("td", {}, one.state), h("td", { class: "num" }, `${bytes(one.behind)} behind`)));
  const link = now.role === "master" ? `primary, ${rows.length} replica${rows.length === 1 ? "" : "s"}` : `replica, link ${now.link ?? "unknown"}`;
  return card("w6", "Server", `${now.server}, llmcache ${now.module ?? "not loaded"}, ${link}`,
    h("dl", { class: "kv" },
      h("dt", {}, "up"), h("dd", {}, span(now.uptime_in_seconds)),
      h("dt", {}, "clients"), h("dd", {}, `${count(now.connected_clients)}, ${count(now.blocked_clients)} waiting`),
      h("dt", {}, "commands"), h("dd", {}, `${count(now.instantaneous_ops_per_sec)} a second`),
      h("dt", {}, "searches in threads"), h("dd", {}, `${count(now.did.searches_in_threads)} so far, ${count(now.did.searches_out)} now`),
      h("dt", {}, "commands in slices"), h("dd", {}, `${count(now.did.commands_in_slices)} now`),
      h("dt", {}, "eviction"), h("dd", {}, `${now.policy}; ${count(now.evicted_keys)} keys evicted, ${count(now.expired_keys)} expired, ${count(now.did.chunks_evicted)} chunks`),
      h("dt", {}, "being generated"), h("dd", {}, `${count(now.did.leases)} answers, ${count(now.did.waiters)} clients wait`)),
    rows.length ? h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, rows))) : null);
}

function draw(main, fitting) {
  const { now } = live;
  if (!now) { put(main, problem(new Error(live.problem ?? "no sample yet"))); return; }
  const from = now.at - seconds;
  const samples = live.history.filter((one) => one.at >= from);
  const times = samples.map((one) => one.at);
  const did = now.did, hits = did.hits_exact + did.hits_semantic;
  const ratio = [{ name: "exact", cls: "c1", values: ratios(samples, "hits_exact"), area: true }, { name: "by meaning", cls: "c2", values: ratios(samples, "hits_semantic"), area: true }];
  const work = [{ name: "look-ups", cls: "c1", values: rates(samples, "lookups") }, { name: "refused by guards", cls: "c3", values: rates(samples, "refused_by_guards") }, { name: "searches in threads", cls: "c4", values: rates(samples, "searches_in_threads") }];
  for (const one of [...ratio, ...work]) { const last = one.values.findLast((value) => value !== null); one.now = last === undefined ? "–" : ratio.includes(one) ? percent(last) : `${count(last)}/s`; }
  const width = fitting();
  const spans = h("div", { class: "row" }, SPANS.map(([name, long]) => h("button", { type: "button", "aria-pressed": seconds === long, class: seconds === long ? "main" : "", click: () => { seconds = long; draw(main, fitting); } }, name)));
  const quiet = did.lookups === 0 && did.entries === 0 && did.documents === 0 && did.chunks === 0;
  put(main, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Overview"), h("p", { class: "sub" }, "Sums of this process since it started; lines as they happen.")), spans),
    h("div", { class: "grid" },
      stats([
        ["Hit ratio", did.lookups ? percent(hits / did.lookups) : "–", `${count(hits)} of ${count(did.lookups)} look-ups`],
        ["Tokens saved", count(did.tokens_saved), "not generated again"],
        ["Time saved", span(did.ms_saved / 1000), "not waited for"],
        ["Money saved", usd(did.micro_usd_saved / 1e6), "as stores told"],
        ["Answers", count(did.entries), `in ${count(did.caches)} caches`],
        ["Generations shared", count(did.fetch_coalesced), `${count(did.fetch_lead)} leases given`],
      ]),
      quiet ? empty("Nothing is stored yet", "Store an answer, or fill a server with examples by `make console`.", 'redis-cli LLMCACHE.SET faq PROMPT "What is new?" RESPONSE "A console."') : null,
      card("w6", "Hit ratio by tier", "share of the look-ups of ten seconds", legend(ratio), lines(times, ratio, { most: 1, width, format: percent, label: "hit ratio by tier over time" })),
      card("w6", "Work", "each second", legend(work), lines(times, work, { width, format: count, label: "look-ups a second" })),
      memory(now), replication(now)));
}

export async function show(main) {
  const fitting = () => Math.max(300, (main.clientWidth >= 760 ? (main.clientWidth - 64) / 2 : main.clientWidth) - 76);
  const again = () => keeping(main, () => draw(main, fitting));
  again();
  const unwatch = watch(again);
  addEventListener("resize", again);
  return () => { unwatch(); removeEventListener("resize", again); };
}
