// One stream of samples for all pages: the latest, what came before, and who is told.
import { ask } from "./dom.js";

const KEPT = 900;
const told = new Set();
export const live = { now: null, history: [], session: null, problem: null };

function changed() { for (const one of told) one(); }

/** Tells of each sample until the page goes. */
export function watch(one) { told.add(one); return () => told.delete(one); }

function note(sample) {
  live.problem = sample.problem ?? null;
  if (!sample.problem) {
    live.now = sample;
    const { containers, replicas, ...kept } = sample;
    if (live.history.at(-1)?.at !== kept.at) live.history.push(kept);
    if (live.history.length > KEPT) live.history.shift();
  }
  changed();
}

export async function start(state) {
  const tell = () => {
    state.className = `state ${live.problem ? "lost" : "live"}`;
    state.textContent = live.problem ? "server lost" : live.now ? `${live.now.server}${live.session?.write ? "" : " · read-only"}` : "";
    state.title = live.problem ?? "";
  };
  watch(tell);
  try {
    live.session = await ask("session");
    const { now, history } = await ask("overview");
    live.now = now;
    live.history = history;
  } catch (error) { live.problem = error.message; }
  tell();
  const events = new EventSource("api/events");
  events.onmessage = (event) => note(JSON.parse(event.data));
  events.onerror = () => { live.problem = "the console does not answer"; changed(); };
}

/** Containers of a kind in the database that the console is connected to. */
export const containers = (kind) => (live.now?.containers ?? []).filter((one) => one.kind === kind && one.db === live.session?.db);
