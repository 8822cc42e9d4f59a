// Sessions: conversations, the window that a model would get, and a message while it is written.
import { ask, bytes, count, empty, field, h, problem, put, shown, stats } from "./dom.js";
import { live } from "./live.js";

export async function show(main, given, current) {
  const list = h("ul", { class: "list" }), talk = h("div", { class: "w8 card-wide" });
  const owner = h("input", { name: "owner", placeholder: "key of an owner's list", autocomplete: "off", "aria-label": "owner" });
  let stream = null;
  const close = () => { stream?.close(); stream = null; };
  const rows = new Map();

  async function find(cursor) {
    const told = await ask("sessions", { cursor, owner: owner.value.trim() });
    if (!current()) return told;
    if (!cursor) rows.clear();
    for (const one of told.rows) rows.set(one.name, one);
    put(list, [...rows.values()].map((one) => h("li", {}, h("button", { type: "button", "aria-current": one.name === given ? "true" : null, click: () => { location.hash = `#/sessions/${encodeURIComponent(one.name)}`; } },
      h("span", {}, one.shown, one.open ? h("span", { class: "tag on" }, "live") : null), h("span", { class: "soft num" }, `${count(one.messages)} · ${count(one.tokens)} t`)))),
      rows.size ? null : h("li", { class: "note" }, told.next ? "None among the keys looked at so far." : "None found."),
      told.next ? h("li", {}, h("button", { type: "button", click: () => find(told.next) }, h("span", {}, "Look further"))) : null);
    return told;
  }

  async function window_(asked) {
    close();
    const told = await ask("window", { name: given, ...asked });
    if (!current()) return;
    const messages = told.messages.map((one) => h("div", { class: `message ${one.role}` }, h("span", { class: "who" }, one.role, one.pinned ? h("span", { class: "tag" }, "pinned") : null, one.summary ? h("span", { class: "tag" }, "summary") : null),
      shown(one.text), h("span", { class: "soft num" }, `${count(one.tokens)} t`)));
    const body = h("div", { id: "messages" }, messages);
    const form = h("form", { class: "fields", submit: (event) => { event.preventDefault(); window_({ ...Object.fromEntries(new FormData(form)) }).catch(fail); } },
      field("tokens", "Tokens", { type: "number", min: 1, value: asked.tokens ?? "", placeholder: "no limit" }), field("turns", "Turns", { type: "number", min: 1, value: asked.turns ?? "", placeholder: "no limit" }),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "pairs", checked: Boolean(asked.pairs) }), "keep calls with results"), h("button", { class: "main", type: "submit" }, "Show window"));
    put(talk, stats([["Messages", count(told.info.messages), `${count(told.info.pinned ?? 0)} pinned`], ["Tokens", count(told.info.tokens), `${count(told.tokens)} in this window`], ["Memory", bytes(told.info.bytes)]]),
      h("section", { class: "card" }, h("h2", {}, told.shown), h("p", { class: "sub" }, told.more ? `The newest that fit, from message ${told.first} on; older ones are left out.` : "All of it fits."), form, body.children.length ? body : h("p", { class: "note" }, "No message yet."), body));
    if (told.open) follow(told.open, body);
  }

  function follow(seq, body) {
    const text = h("span", { class: "text caret", id: "live" }), who = h("span", { class: "soft num" }, "live");
    body.append(h("div", { class: "message assistant" }, h("span", { class: "who" }, "assistant"), text, who));
    stream = new EventSource(`api/follow?${new URLSearchParams({ name: given, seq })}`);
    stream.onmessage = (event) => {
      const told = JSON.parse(event.data);
      if (told.problem) { close(); who.textContent = told.problem; return; }
      text.append(told.text);
      if (told.status !== "open") { close(); text.className = "text"; who.textContent = told.status; }
    };
    stream.onerror = () => { close(); who.textContent = "lost"; };
  }

  const fail = (error) => { if (current()) put(talk, problem(error)); };
  put(main, h("div", { class: "head" }, h("div", {}, h("h1", {}, "Sessions"), h("p", { class: "sub" }, "Conversations as a model would get them."))),
    h("div", { class: "grid" }, h("section", { class: "card w4" }, h("h2", {}, "Conversations"), h("p", { class: "note" }, "Found among a few thousand keys at a time. By owner all of theirs, newest first."),
      h("form", { class: "row", submit: (event) => { event.preventDefault(); find(0).catch(fail); } }, owner), list), talk));
  const told = await find(0);
  if (!current()) return close;
  if (!given && told.rows.length) { given = told.rows[0].name; history.replaceState(null, "", `#/sessions/${encodeURIComponent(given)}`); put(list, [...list.children]); }
  if (given) await window_({}).catch(fail);
  else if (!told.next) put(talk, empty("No session yet", "A session is one key with all messages.", 'redis-cli SESSION.APPEND chat:7 MSG user "Hello."'));
  else put(talk, empty("Choose a conversation", `None among the first keys${live.now ? ` of ${live.now.server}` : ""}. Look further, or name an owner.`));
  return close;
}
