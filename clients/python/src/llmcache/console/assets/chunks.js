// KV cache: the prefix tree with its heat, what is held, and what eviction would take next.
import { ask, bytes, clickable, count, empty, h, open, percent, pick, problem, put, stats } from "./dom.js";
import { tree } from "./charts.js";
import { containers, live, watch } from "./live.js";

function details(one) {
  open(one.digest.slice(0, 24), h("dl", { class: "kv" }, [["digest", one.digest], ["follows", one.parent ?? "nothing: it begins a prompt, or the chunk before is gone"], ["place", count(one.position)], ["hits", count(one.hits)], ["heat", one.heat.toFixed(3)], ["size", bytes(one.bytes)], ["priority", count(one.prio)], ["pinned", one.pinned ? "yes" : "no"], ["leases", count(one.leases)], ["deadline", one.deadline ? new Date(one.deadline).toLocaleString("en-GB") : "none"]].map(([name, value]) => [h("dt", {}, name), h("dd", { class: name === "digest" ? "mono" : "" }, value)])));
}

export async function show(main, given, current) {
  const all = containers("chunks"), name = given || all[0]?.name;
  if (!name) { put(main, h("div", { class: "head" }, h("h1", {}, "KV cache")), empty("No namespace yet", "Inference engines keep the attention cache of prompts here.", "redis-cli KVCHUNK.CREATE vllm@model BUDGET 1gb")); return null; }
  const body = h("div", {});
  let cursor = 0, last = "";
  async function draw() {
    const told = await ask("namespace", { name, cursor });
    const now = JSON.stringify(told);
    if (!current() || now === last) return;
    last = now;
    const { info, stats: did } = told;
    const goes = new Map(told.eviction.map((one, at) => [one.digest, at + 1]));
    const held = told.tree.filter((one) => one.pinned || one.leases);
    const rows = (list, none) => list.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "chunk"), h("th", { class: "num" }, "place"), h("th", { class: "num" }, "hits"), h("th", { class: "num" }, "heat"), h("th", { class: "num" }, "size"))),
      h("tbody", {}, list.map((one) => h("tr", clickable(() => details(one)), h("td", { class: "mono" }, one.digest.slice(0, 12), one.pinned ? h("span", { class: "tag on" }, "pinned") : null, one.leases ? h("span", { class: "tag on" }, "leased") : null), h("td", { class: "num" }, count(one.position)), h("td", { class: "num" }, count(one.hits)), h("td", { class: "num" }, one.heat.toFixed(2)), h("td", { class: "num" }, bytes(one.bytes))))))) : h("p", { class: "note" }, none);
    put(body, h("div", { class: "grid" },
      stats([["Chunks found", did.asked ? percent(did.matched / did.asked) : "–", `${count(did.matched)} of ${count(did.asked)} asked for`], ["Chunks", count(info.chunks), info.budget ? `${percent(info.bytes / info.budget)} of the budget` : "no budget"], ["Memory", bytes(info.bytes), info.budget ? `of ${bytes(info.budget)}` : `${bytes(info.payload_bytes)} of payload`], ["Evicted", count(did.evicted), `${count(did.stored)} stored`], ["Held", `${count(info.pinned)} / ${count(info.leases)}`, "pinned chunks / leases"], ["Served", bytes(did.bytes_out), "since the process started"]]),
      h("section", { class: "card" }, h("h2", {}, "Prefix tree"), h("p", { class: "sub" }, `${count(told.tree.length)} of ${count(info.chunks)} chunks; a prompt runs from left to right, what is used often is dark`),
        h("ul", { class: "legend" }, [["c1", "used"], ["c3", "pinned"], ["c2", "leased"], ["bad", "of the ten that go next"]].map(([cls, text]) => h("li", {}, h("i", { class: cls }), text))),
        told.tree.length ? tree(told.tree, goes, details) : empty("No chunks", "The namespace is empty."),
        told.next || cursor ? h("p", { class: "row" }, told.next ? h("button", { type: "button", click: () => { cursor = told.next; draw().catch(fail); } }, "Next page") : null, cursor ? h("button", { type: "button", click: () => { cursor = 0; draw().catch(fail); } }, "First page") : null) : null),
      h("section", { class: "card w6", id: "eviction" }, h("h2", {}, "Goes next"), h("p", { class: "sub" }, "in the order in which eviction would take them now"), rows(told.eviction, "Nothing may be evicted now.")),
      h("section", { class: "card w6" }, h("h2", {}, "Held"), h("p", { class: "sub" }, "pinned or leased, of this page"), rows(held, "Nothing is pinned or leased."))));
  }
  const fail = (error) => { if (current() && !live.problem) put(body, problem(error)); };
  put(main, h("div", { class: "head" }, h("div", {}, h("h1", {}, "KV cache"), h("p", { class: "sub" }, "Attention state of prompts, by prefix.")), pick(all, name, "kv")), body);
  await draw();
  return watch(() => { if (!body.contains(document.activeElement) && !document.querySelector("dialog[open]")) draw().catch(fail); });
}
