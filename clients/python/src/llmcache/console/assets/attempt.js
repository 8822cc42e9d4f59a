// Try it: a question, which entry, how near, which guard, why.
import { ask, count, empty, field, h, open, pick, problem, put, shown, similarity } from "./dom.js";
import { containers } from "./live.js";

const WHY = {
  "below-threshold": "The nearest entry is not near enough.", guard: "A guard refused: the questions are near and ask for different things.", empty: "Nothing is stored in this scope and context.",
  filter: "FILTER left out what is near.", expired: "The nearest answer has expired.", "max-age": "The nearest answer is too old.", unproven: "MAXERROR has proven no threshold yet.",
  filling: "The index is being filled from its entries.", "no-cache": "There is no such cache.", "too-long": "The text is too long to be embedded.", script: "The model does not know the script of the text.",
};

function outcome(told, byMeaning) {
  const hit = told.status === "hit" || told.status === "stale";
  const entry = told.entry;
  return h("section", { class: "card", id: "outcome", "aria-live": "polite" },
    h("div", { class: "verdict" }, h("span", { class: hit ? "good" : "warn" }, hit ? "Hit" : "Miss"), h("span", { class: "soft" }, hit ? (told.tier === "exact" ? "word for word" : "by meaning") : told.reason ?? "")),
    hit ? null : h("p", { class: "note" }, !byMeaning && told.reason === "empty" ? "Not stored word for word. Give a vector to look by meaning." : WHY[told.reason] ?? "", told.guard ? ` Guard: ${told.guard}${told.guard_words ? ` (${told.guard_words.map((word) => (word ? `“${word}”` : "none")).join(" against ")})` : ""}.` : ""),
    h("dl", { class: "kv" },
      h("dt", {}, "similarity"), h("dd", {}, h("b", {}, similarity(told.similarity)), told.threshold !== null && told.threshold <= 1 ? h("span", { class: "soft" }, `  threshold ${told.threshold.toFixed(2)}`) : null),
      entry ? [h("dt", {}, hit ? "stored question" : "nearest"), h("dd", {}, shown(entry.prompt)), h("dt", {}, hit ? "answer" : "its answer"), h("dd", { class: hit ? "" : "soft" }, shown(entry.response))] : null,
      h("dt", {}, "work"), h("dd", { class: "soft" }, `index ${told.index}, ${count(told.work.scanned ?? 0)} compared, ${count(told.work.opened ?? 0)} opened${told.embed_us !== null ? `, embedded in ${(told.embed_us / 1000).toFixed(1)} ms` : ""}`)));
}

export async function show(main, given, current) {
  const all = containers("answers"), name = given || all[0]?.name;
  if (!name) { put(main, h("div", { class: "head" }, h("h1", {}, "Try it")), empty("No cache to ask", "Store an answer first.", 'redis-cli LLMCACHE.SET faq PROMPT "What is new?" RESPONSE "A console."')); return null; }
  const info = await ask("cache", { name });
  if (!current()) return null;
  const embeds = info.settings.embed && info.settings.embed !== "none";
  const where = h("div", {});
  const form = h("form", { class: "card", submit: async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    try {
      const vector = values.vector.trim() ? JSON.parse(values.vector.trim().replace(/^([^[].*)$/s, "[$1]")) : null;
      const told = await ask("attempt", { name }, { ...values, vector, threshold: values.threshold === "" ? null : Number(values.threshold) });
      if (current()) put(where, outcome(told, embeds || vector !== null));
    } catch (error) { if (current()) put(where, problem(error instanceof SyntaxError ? new Error("a vector is numbers with commas between them") : error)); }
  } },
  field("prompt", "Question", { rows: 2, placeholder: "Type a question", keydown: (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); form.requestSubmit(); } } }),
  h("div", { class: "fields" }, field("scope", "Scope", { placeholder: "the empty one" }), field("context", "Context", { placeholder: "the empty one" }),
    field("threshold", "Threshold", { type: "number", step: "0.01", min: -1, max: 1, placeholder: info.threshold?.toFixed?.(2) ?? "" }), field("filter", "Filter", { placeholder: ".lang == \"en\"" })),
  field("vector", embeds ? "Vector (the server embeds the question where this is empty)" : `Vector of ${info.settings.dim || "n"} numbers: this cache embeds nothing itself; without one only the same words are found`, { rows: 2, class: "mono", placeholder: "0.12, -0.03, …" }),
  h("p", { class: "row" }, h("button", { class: "main", type: "submit" }, "Look up"), h("span", { class: "soft" }, "counts as a look-up")));
  put(main, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Try it"), h("p", { class: "sub" }, "What would this question get, and why.")), pick(all, name, "try")), h("div", { class: "grid" }, form, h("div", { class: "card-wide" }, where)));
  return null;
}
