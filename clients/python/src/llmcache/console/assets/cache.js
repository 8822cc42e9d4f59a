// Cache: how near questions come, what nearly hit, and what is worth keeping.
import { ago, ask, bytes, clickable, count, empty, h, open, percent, pick, problem, put, shown, similarity, span, stats, usd } from "./dom.js";
import { bars, histogram } from "./charts.js";
import { containers, live, watch } from "./live.js";

const REASONS = {
  empty: "nothing stored in the scope", threshold: "below the threshold", filter: "left out by FILTER", expired: "expired", maxage: "older than MAXAGE",
  guard: "refused by a guard", unproven: "MAXERROR has no proof yet", filling: "index being filled",
};
const card = (wide, title, sub, ...children) => h("section", { class: `card ${wide}` }, h("h2", {}, title), sub ? h("p", { class: "sub" }, sub) : null, ...children);
const shareAt = (thresholds, at) => thresholds.reduce((best, one) => (Math.abs(one[0] - at) < Math.abs(best[0] - at) ? one : best), thresholds[0]);

function similarities(told) {
  const asked = told.histogram.reduce((sum, [, n]) => sum + n, 0);
  if (!asked) return card("w8", "Similarity of the nearest entry", null, h("p", { class: "note" }, "No look-up by meaning yet. Each one with a vector, or with a text where the cache has EMBED, counts here."));
  const where = h("div"), said = h("p", { class: "note" });
  // What is served from a bin on, as far as the histogram tells.
  const from = (at) => told.histogram.filter(([edge]) => edge + 0.005 >= at).reduce((sum, [, n]) => sum + n, 0) / asked;
  const slide = h("input", { type: "range", min: 0.5, max: 1, step: 0.01, value: told.threshold, "aria-label": "another threshold", input: () => tell(Number(slide.value)) });
  const width = () => Math.max(280, Math.min(where.clientWidth || 600, 900));
  function tell(at) {
    put(where, histogram(told.histogram, told.threshold, at, { width: width() }));
    const exact = told.thresholds.find(([edge]) => Math.abs(edge - at) < 0.001);
    const share = exact ? exact[1] : from(at), now = from(told.threshold), more = share - now;
    put(said, `A threshold of ${at.toFixed(2)} would serve `, h("b", {}, percent(share)), ` of ${count(asked)} look-ups by meaning`,
      Math.abs(at - told.threshold) < 0.005 ? ", as now." : `, ${percent(Math.abs(more))} ${more < 0 ? "fewer" : "more"} than now.`, " Guards and filters aside: they refuse some of these.");
  }
  queueMicrotask(() => tell(told.threshold));
  return card("w8", "Similarity of the nearest entry", `${told.verified === "off" ? "threshold as set" : `threshold by MAXERROR: ${told.verified}`}; blue would be served, grey not`, where,
    h("label", {}, "Try another threshold", slide), said);
}

function misses(told) {
  const rows = Object.entries(told.reasons).filter(([, n]) => n > 0).sort(([, one], [, other]) => other - one);
  return card("w4", "Misses by reason", `${count(told.stats.misses)} misses`, rows.length
    ? bars(rows.map(([reason, n]) => [REASONS[reason] ?? reason, n, count(n)]), rows[0][1], "c3") : h("p", { class: "note" }, "None."));
}

function near(name, one, again, feedback) {
  const judge = (verdict, text) => h("button", {
    type: "button", disabled: !live.session.write || (verdict !== "INVALIDATE" && !feedback),
    title: !live.session.write ? "start the console with --allow-write" : verdict !== "INVALIDATE" && !feedback ? "feedback is for caches with MAXERROR" : "",
    click: async (event) => {
      event.target.disabled = true;
      try { await ask("judge", { name }, { id: one.id, number: one.number, verdict }); await again(); } catch (error) { put(event.target.closest(".near"), problem(error)); }
    },
  }, text);
  return h("article", { class: "near", tabIndex: 0, "data-number": one.number },
    h("div", {}, h("div", { class: "label" }, "asked"), shown(one.question)),
    h("div", {}, h("div", { class: "label" }, "stored"), shown(one.candidate)),
    h("div", { class: "foot" }, h("b", {}, similarity(one.similarity)), h("span", { class: one.guard ? "warn" : "soft" }, one.guard ? `refused by the guard: ${one.guard}` : one.reason.replaceAll("-", " ")),
      h("span", { class: "soft" }, ago(one.at)),
      h("div", { class: "row" }, judge("RIGHT", "Same answer"), judge("WRONG", "Other answer"), judge("INVALIDATE", "Remove the answer"))));
}

const SHOWN = 8;
let all = false;

function nearMisses(name, told, again) {
  const body = told.problem ? h("p", { class: "note bad" }, told.problem)
    : !told.on ? h("div", { class: "empty" }, h("div", {}, "The log of near misses is off."), h("div", { class: "mono" }, `LLMCACHE.CONFIG ${told.shown} SET nearmisses 1000`))
      : told.rows.length ? [told.rows.slice(0, all ? told.rows.length : SHOWN).map((one) => near(name, one, again, told.feedback)), told.rows.length > SHOWN && !all ? h("p", {}, h("button", { type: "button", click: () => { all = true; again(); } }, `Show all ${told.rows.length}`)) : null] : h("p", { class: "note" }, "None left. A question that comes near and is not served appears here.");
  return card("", "Near misses", told.rows.length ? "Both questions side by side. Feedback is an opinion on the stored entry; removing it unlinks the entry." : null,
    !live.session.write && told.rows.length ? h("p", { class: "note" }, "Read-only: start the console with --allow-write to judge them.") : null, h("div", { id: "near" }, body));
}

function details(name) {
  return async (id) => {
    try {
      const one = await ask("entry", { name, id });
      open(one.name, h("dl", { class: "kv" },
        h("dt", {}, "prompt"), h("dd", {}, shown(one.prompt)), h("dt", {}, "response"), h("dd", {}, shown(one.response)),
        h("dt", {}, "scope"), h("dd", {}, one.scope || "the empty one"), h("dt", {}, "context"), h("dd", {}, shown(one.context)),
        h("dt", {}, "meta"), h("dd", {}, shown(one.meta, "text mono")), h("dt", {}, "stored"), h("dd", {}, `${span(one.age)} ago, lives ${one.ttl === null ? "for good" : span(one.ttl)}`),
        h("dt", {}, "size"), h("dd", {}, bytes(one.bytes))));
    } catch (error) { open("Entry", problem(error)); }
  };
}

function entryTable(rows, name, saved) {
  const show = details(name);
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "prompt"), h("th", { class: "num" }, "hits"), saved ? h("th", { class: "num" }, "saved") : null, h("th", { class: "num" }, saved ? "size" : "stored"))),
    h("tbody", {}, rows.map((one) => h("tr", clickable(() => show(one.id)),
      h("td", {}, h("div", { class: "clip" }, shown(one.prompt)), one.stale ? h("span", { class: "tag" }, "stale") : null, one.scope ? h("span", { class: "tag" }, one.scope) : null, one.tags.slice(0, 4).map((tag) => h("span", { class: "tag" }, tag))),
      h("td", { class: "num" }, count(one.hits)), saved ? h("td", { class: "num" }, usd(one.saved)) : null, h("td", { class: "num" }, saved ? bytes(one.bytes) : `${span(one.age)} ago`))))));
}

function entryCards(told, name, further) {
  const ranked = (rows, none) => rows.length ? h("div", { class: "tags" }, rows.map(([text, n]) => h("span", { class: "tag" }, `${text || "the empty one"} · ${n}`))) : h("p", { class: "note" }, none);
  return [
    card("w6", "Most valuable", "hits times cost, of those used most", told.valuable.length ? entryTable(told.valuable, name, true) : h("p", { class: "note" }, "No hit yet in this process.")),
    card("w6", "Most recent of a page", `${told.page.length} entries, a sample in no order`, told.page.length ? entryTable(told.page.slice(0, 12), name, false) : h("p", { class: "note" }, "No entries."),
      told.next ? h("p", {}, h("button", { type: "button", click: () => further(told.next) }, "Another page")) : null),
    card("w6", "Scopes", "of this page", ranked(told.scopes, "None.")), card("w6", "Tags", "of this page", ranked(told.tags, "None. TAGS of LLMCACHE.SETSEM name what an answer depends on.")),
  ];
}

export async function show(main, given, current) {
  all = false;
  const caches = containers("answers"), name = given || caches[0]?.name;
  if (!name) {
    put(main, h("div", { class: "head" }, h("h1", {}, "Cache")), empty("No cache yet", "A cache is made with its first answer.", 'redis-cli LLMCACHE.CREATE faq NEARMISSES 1000'));
    return watch(() => { if (containers("answers").length && current()) location.hash = `#/cache/${encodeURIComponent(containers("answers")[0].name)}`; });
  }
  const top = h("div", { class: "grid" }), misfits = h("div", { class: "grid" }), stored = h("div", { class: "grid" });
  const head = h("div", { class: "head" }, h("div", {}, h("h1", {}, "Cache"), h("p", { class: "sub" }, "Questions, hits and what they come from.")), pick(caches, name, "cache"));
  let last = "";
  async function counters() {
    const told = await ask("cache", { name });
    if (!current() || main.contains(document.activeElement?.closest?.("input[type=range]"))) return;
    const now = JSON.stringify(told);
    if (now === last) return;
    last = now;
    const { stats: did } = told;
    put(top, stats([
      ["Hit ratio", did.lookups ? percent(told.hit_ratio) : "–", `${count(did.hits_exact)} exact, ${count(did.hits_semantic)} by meaning`],
      ["Look-ups", count(did.lookups), `${count(did.misses)} misses`], ["Money saved", usd(told.usd_saved), `${count(did.tokens_saved)} tokens`],
      ["Threshold", Number.isFinite(told.threshold) ? told.threshold.toFixed(2) : "exact only", `guard ${told.settings.guard}`],
      ["Entries", count(told.settings.entries), bytes(told.settings.bytes)], ["Opinions", `${count(did.opinions_right)} / ${count(did.opinions_wrong)}`, "right / wrong"],
    ]), similarities(told), misses(told));
  }
  async function log() {
    const told = await ask("near-misses", { name });
    if (current() && !misfits.contains(document.activeElement)) put(misfits, nearMisses(name, told, again));
  }
  async function again() { document.activeElement?.blur?.(); await Promise.all([counters(), log()]); }
  async function page(cursor) { const told = await ask("entries", { name, cursor }); if (current()) put(stored, entryCards(told, name, page)); }
  await Promise.all([counters(), log(), page(0)]);
  if (!current()) return null;
  put(main, head, top, h("div", { class: "gap" }), misfits, h("div", { class: "gap" }), stored);
  return watch(() => { Promise.all([counters(), log()]).catch((error) => { if (current() && !live.problem) put(main, problem(error)); }); });
}
