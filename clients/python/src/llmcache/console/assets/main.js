// Which page is shown, and keys that work on all of them.
import { h, problem, put } from "./dom.js";
import { live, start } from "./live.js";
import * as attempt from "./attempt.js";
import * as cache from "./cache.js";
import * as chunks from "./chunks.js";
import * as documents from "./documents.js";
import * as overview from "./overview.js";
import * as sessions from "./sessions.js";

const PAGES = [
  ["overview", "Overview", overview], ["cache", "Cache", cache], ["try", "Try it", attempt],
  ["documents", "Documents", documents], ["sessions", "Sessions", sessions], ["kv", "KV cache", chunks],
];
const main = document.getElementById("main"), nav = document.getElementById("nav"), help = document.getElementById("help");
let leave = null, turn = 0;

function asked() {
  const [page, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const found = PAGES.find(([path]) => path === page) ?? PAGES[0];
  let name = rest.join("/");
  try { name = decodeURIComponent(name); } catch { name = ""; }
  return [found, name];
}

async function show() {
  if (location.hash === "#main") return;
  const [[path, title, page], name] = asked();
  const mine = ++turn;
  leave?.();
  leave = null;
  document.title = `${title} · llmcache`;
  put(nav, PAGES.map(([at, text], number) => h("a", { href: `#/${at}`, title: `${text} (${number + 1})`, "aria-current": at === path ? "page" : null }, text)));
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  try {
    const left = await page.show(main, name, () => mine === turn);
    if (mine === turn) leave = left ?? null; else left?.();
  } catch (error) { if (mine === turn) put(main, problem(error)); }
  if (mine === turn) main.dataset.page = path;
}

function theme() {
  const now = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = now;
  try { localStorage.setItem("theme", now); } catch { /* private mode: the choice lasts as long as the page */ }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
try { chosen = localStorage.getItem("theme"); } catch { /* as above */ }
document.documentElement.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
dark.addEventListener("change", (event) => { if (!chosen) document.documentElement.dataset.theme = event.matches ? "dark" : "light"; });

const KEYS = [["1 – 6", "the pages"], ["/", "the first field of the page"], ["j k", "next and previous row"], ["t", "light or dark"], ["?", "this help"], ["Esc", "close, or leave a field"]];
put(help, h("h2", {}, "Keyboard"), h("dl", { class: "kv" }, KEYS.map(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)])),
  h("p", {}, h("button", { type: "button", click: () => help.close() }, "Close")));

function step(by) {
  const rows = [...main.querySelectorAll("[tabindex='0'], .near, .list button")].filter((row) => row.offsetParent !== null || row.tagName === "rect");
  const at = rows.findIndex((row) => row === document.activeElement || row.contains(document.activeElement));
  rows[Math.max(0, Math.min(rows.length - 1, at + by))]?.focus();
}

document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, textarea, select");
  if (event.key === "Escape" && field) field.blur();
  if (field || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key >= "1" && event.key <= String(PAGES.length)) location.hash = `#/${PAGES[event.key - 1][0]}`;
  else if (event.key === "t") theme();
  else if (event.key === "?") help.showModal();
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/") (main.querySelector("textarea, input:not([type=range])") ?? main.querySelector("select"))?.focus();
  else return;
  event.preventDefault();
});
document.getElementById("theme").addEventListener("click", theme);
document.getElementById("keys").addEventListener("click", () => help.showModal());
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", show);

await start(document.getElementById("state"));
await show();
export { live };
