// Elements, numbers and addresses. Texts of users become text nodes here, and nothing else anywhere.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "rect", "path", "line", "text", "title", "circle"]);

/** An element: attributes, listeners as functions, children as nodes or texts. */
export function h(tag, given = {}, ...children) {
  const made = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "class") made.setAttribute("class", value);
    else if (name === "width%") made.style.width = `${value}%`;
    else if (name in made && !SVG_TAGS.has(tag) && name !== "list") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) made.append(child);
  }
  return made;
}

export const put = (where, ...children) => where.replaceChildren(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));

/** A text of a user, with how much of it was cut. */
export function shown(told, cls = "text") {
  if (!told) return h("span", { class: "soft" }, "none");
  const rest = told.cut ? h("span", { class: "cut" }, ` … cut; ${bytes(told.bytes)} in all`) : null;
  return h("span", { class: cls }, told.text, rest);
}

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
export const count = (n) => (Math.abs(n) < 100000 ? whole.format(Math.round(n)) : short.format(n));
export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
export const similarity = (n) => (n === null || n === undefined ? "–" : n.toFixed(3));
export const usd = (n) => (n !== 0 && Math.abs(n) < 1 ? `$${n.toFixed(4)}` : `$${n.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`);

export function bytes(n) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (n >= size) return `${(n / size).toFixed(n / size < 10 ? 1 : 0)} ${unit}`;
  }
  return `${n} B`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${(seconds / size).toFixed(seconds / size < 10 ? 1 : 0)} ${unit}`;
  }
  return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

export const ago = (at) => `${span(Math.max(0, Date.now() / 1000 - at))} ago`;

/** Asks the console. A problem is thrown as an error. */
export async function ask(path, query = {}, body = undefined) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== "" && value !== null && value !== undefined) asked.set(name, value);
  const sent = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", "x-llmcache-console": "1" },
  };
  const answer = await fetch(`api/${path}?${asked}`, sent).catch(() => { throw new Error("the console does not answer"); });
  const told = await answer.json().catch(() => ({ problem: `the console answered ${answer.status}` }));
  if (told.problem && !answer.ok) throw new Error(told.problem);
  return told;
}

export const problem = (error) => h("div", { class: "card problem", role: "alert" }, h("h2", {}, "That did not work"), h("p", { class: "note" }, error.message ?? String(error)));

export const empty = (title, text, command) =>
  h("div", { class: "card empty" }, h("h2", {}, title), h("div", {}, text), command ? h("div", { class: "mono" }, command) : null);

export function stats(rows) {
  return h("dl", { class: "stats" }, rows.map(([name, value, more]) =>
    h("div", { class: "stat" }, h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, more) : null))));
}

export function field(name, label, given = {}) {
  const made = given.rows ? h("textarea", { name, ...given }) : h("input", { name, autocomplete: "off", spellcheck: false, ...given });
  return h("label", {}, label, made);
}

/** Which container of a kind: a choice that goes to its page. */
export function pick(containers, name, page) {
  const chosen = h("select", { "aria-label": "which", class: "pick", change: () => { location.hash = `#/${page}/${encodeURIComponent(chosen.value)}`; } },
    containers.map((one) => h("option", { value: one.name, selected: one.name === name }, `${one.shown} · ${count(one.entries)}`)));
  return chosen;
}

export function clickable(act) {
  return { tabIndex: 0, click: act, keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(event); } } };
}

export function open(title, ...children) {
  const made = h("dialog", { "aria-label": title, close: () => made.remove(), click: (event) => { if (event.target === made) made.close(); } },
    h("h2", {}, title), ...children, h("p", {}, h("button", { type: "button", click: () => made.close() }, "Close")));
  document.body.append(made);
  made.showModal();
}

/** Draws anew and leaves the focus on what has taken the place of the focused. */
export function keeping(main, draw) {
  const all = () => [...main.querySelectorAll("a, button, input, select, textarea, [tabindex]")];
  const at = all().indexOf(document.activeElement);
  draw();
  if (at >= 0) all()[at]?.focus({ preventScroll: true });
}
