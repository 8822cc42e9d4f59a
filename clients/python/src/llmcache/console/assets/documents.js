// Documents: a search, what it found, and what each bound left out.
import { ask, bytes, count, empty, field, h, pick, problem, put, shown, similarity, stats } from "./dom.js";
import { containers } from "./live.js";

function results(told) {
  const found = told.found.map((one, at) => h("article", { class: "card", tabIndex: 0 },
    h("div", { class: "foot" }, h("b", {}, `${at + 1}. ${one.name}`), h("span", { class: "soft" }, `similarity ${similarity(one.similarity)}`), one.tokens === null ? null : h("span", { class: "soft" }, `${count(one.tokens)} tokens`)),
    h("p", {}, shown(one.text)), one.meta ? h("div", { class: "mono soft" }, shown(one.meta)) : null, one.tags.length ? h("div", { class: "tags" }, one.tags.map((tag) => h("span", { class: "tag" }, tag))) : null));
  const out = told.left_out.slice(0, 30);
  return [
    h("div", { class: "w7 card-wide" }, found.length ? found : empty("Nothing found", "No document passes these bounds.")),
    h("section", { class: "card w5", id: "left-out" }, h("h2", {}, "Left out"), h("p", { class: "sub" }, `${told.left_out.length} of the ${told.considered} nearest, and the bound that did it`),
      out.length ? h("table", {}, h("tbody", {}, out.map((one) => h("tr", {}, h("td", { class: "text" }, one.name), h("td", { class: "num" }, similarity(one.similarity)), h("td", { class: "soft" }, one.why))))) : h("p", { class: "note" }, "Nothing.")),
  ];
}

export async function show(main, given, current) {
  const all = containers("documents"), name = given || all[0]?.name;
  if (!name) { put(main, h("div", { class: "head" }, h("h1", {}, "Documents")), empty("No index of documents yet", "Documents are found by meaning, by words, or by both.", 'redis-cli RAG.CREATE docs WORDS english')); return null; }
  const info = await ask("index", { name });
  if (!current()) return null;
  const where = h("div", { class: "grid" });
  const embeds = info.embed && info.embed !== "none", words = info.words && info.words !== "off" && info.words !== "none";
  const form = h("form", { class: "card", submit: async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    try {
      const vector = values.vector.trim() ? JSON.parse(`[${values.vector.trim().replace(/^\[|\]$/g, "")}]`) : null;
      const told = await ask("search", { name }, { ...values, vector });
      if (current()) put(where, results(told));
    } catch (error) { if (current()) put(where, problem(error instanceof SyntaxError ? new Error("a vector is numbers with commas between them") : error)); }
  } },
  h("div", { class: "fields" }, field("text", embeds ? "Question" : "Question (needs EMBED or WORDS)", { placeholder: "by meaning" }), field("words", words ? "Words" : "Words (needs WORDS)", { placeholder: "+must -not \"together\" begin*" })),
  h("div", { class: "fields" }, field("filter", "Filter", { placeholder: ".year >= 2025" }), field("count", "Count", { type: "number", min: 1, max: 20, value: 5 }), field("similarity", "Least similarity", { type: "number", step: 0.01, min: -1, max: 1 }),
    field("mmr", "MMR (1 similar, 0 diverse)", { type: "number", step: 0.05, min: 0, max: 1 }), field("tokens", "Token budget", { type: "number", min: 1 })),
  field("vector", "Vector, instead of a question", { rows: 1, class: "mono", placeholder: "0.12, -0.03, …" }),
  h("p", { class: "row" }, h("button", { class: "main", type: "submit" }, "Search")));
  put(main, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Documents"), h("p", { class: "sub" }, "What a search returns, and what it leaves out.")), pick(all, name, "documents")),
    h("div", { class: "grid" }, stats([["Documents", count(info.entries), `${count(info.vectors)} with a vector`], ["Memory", bytes(info.bytes), `${bytes(info.index_bytes)} of it index`], ["Searches", count(info.lookups), `${count(info.hits)} found something`], ["Dimensions", info.dim || "–", `${info.quant}, ${info.mode}`]]), form), h("div", { class: "gap" }), where);
  return null;
}
