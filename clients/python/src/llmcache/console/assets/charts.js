// Lines, bars and the prefix tree, drawn as SVG. Nothing here asks the console.
import { h, percent } from "./dom.js";

const LEFT = 44, BOTTOM = 20, TOP = 8;

const path = (points) => points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** Lines over time. `series` are `{name, cls, values}` beside `times` in seconds; a value may be null. */
export function lines(times, series, { height = 150, width = 600, format = String, most = null, label = "" } = {}) {
  const values = series.flatMap((one) => one.values).filter((value) => value !== null);
  const top = most ?? (Math.max(...values, 0) * 1.1 || 1);
  const inner = width - LEFT - 6, tall = height - TOP - BOTTOM;
  const first = times[0] ?? 0, last = Math.max(times.at(-1) ?? 1, first + 1);
  const x = (at) => LEFT + ((at - first) / (last - first)) * inner;
  const y = (value) => TOP + tall - (Math.min(value, top) / top) * tall;
  const grid = [0, 0.5, 1].map((share) => [
    h("line", { class: "grid-line", x1: LEFT, x2: width - 6, y1: y(top * share), y2: y(top * share) }),
    h("text", { x: LEFT - 7, y: y(top * share) + 4, "text-anchor": "end" }, format(top * share)),
  ]);
  const drawn = series.map((one) => {
    const runs = [[]];
    one.values.forEach((value, at) => { if (value === null) runs.push([]); else runs.at(-1).push([x(times[at]), y(value)]); });
    return h("g", { class: one.cls }, runs.filter((run) => run.length > 1).map((run) => [
      one.area ? h("path", { class: "area", d: `${path(run)}L${run.at(-1)[0].toFixed(1)} ${y(0)}L${run[0][0].toFixed(1)} ${y(0)}Z` }) : null,
      h("path", { class: "line", d: path(run) }),
    ]));
  });
  const ends = times.length > 1 ? [
    h("text", { x: LEFT, y: height - 4 }, clock(first)),
    h("text", { x: width - 6, y: height - 4, "text-anchor": "end" }, clock(last)),
  ] : [];
  return h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, grid, drawn, ends);
}

export const legend = (series) => h("ul", { class: "legend" }, series.map((one) =>
  h("li", {}, h("i", { class: one.cls }), `${one.name} `, one.now !== undefined ? h("b", {}, one.now) : null)));

/** Similarities of look-ups: bars, the threshold, and one to try. */
export function histogram(bins, threshold, tried, { width = 600, height = 190 } = {}) {
  const low = Math.min(0.5, threshold, ...bins.map(([edge]) => edge));
  const step = 0.01, most = Math.max(...bins.map(([, n]) => n), 1);
  const inner = width - LEFT - 10, tall = height - TOP - BOTTOM - 14;
  const x = (at) => LEFT + ((at - low) / (1 + step - low)) * inner;
  const y = (n) => TOP + 14 + tall - (n / most) * tall;
  const wide = Math.max(1.5, x(low + step) - x(low) - 1);
  const bars = bins.map(([edge, n]) => h("rect", { class: `bar ${edge + step / 2 >= threshold ? "c1" : "c5"}`, x: x(edge), y: y(n), width: wide, height: Math.max(1, TOP + 14 + tall - y(n)), rx: 1.5 },
    h("title", {}, `${edge.toFixed(2)}: ${n}`)));
  const ticks = [];
  for (let at = Math.ceil(low * 10) / 10; at < 1.001; at += 0.1) ticks.push(h("text", { x: x(at), y: height - 4, "text-anchor": "middle" }, at.toFixed(1)));
  const mark = (at, cls, text, side) => [
    h("line", { class: cls, x1: x(at), x2: x(at), y1: TOP, y2: TOP + 14 + tall }),
    h("text", { class: "mark-text", x: x(at) + (side === "end" ? -6 : 6), y: TOP + 8, "text-anchor": side }, text),
  ];
  return h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "look-ups by similarity of the nearest entry" },
    h("line", { class: "grid-line", x1: LEFT, x2: width - 10, y1: y(0), y2: y(0) }),
    h("text", { x: LEFT - 7, y: y(most) + 4, "text-anchor": "end" }, String(most)), h("text", { x: LEFT - 7, y: y(0) + 4, "text-anchor": "end" }, "0"),
    bars, ticks, mark(threshold, "mark", `threshold ${threshold.toFixed(2)}`, "end"),
    Math.abs(tried - threshold) > 0.0049 ? h("line", { class: "try", x1: x(tried), x2: x(tried), y1: TOP + 14, y2: TOP + 14 + tall }) : null);
}

/** Rows with a name, a bar and a number. */
export function bars(rows, most, cls = "c1") {
  return h("table", {}, h("tbody", {}, rows.map(([name, value, said]) =>
    h("tr", {}, h("td", { class: "text" }, name), h("td", {}, h("div", { class: `meter ${cls}` }, h("i", { "width%": most ? (100 * value) / most : 0 }))), h("td", { class: "num" }, said)))));
}

/** The prefix tree from left to right: a column a position, a row a leaf, hotter the fuller. */
export function tree(nodes, goes, chosen) {
  const byDigest = new Map(nodes.map((node) => [node.digest, { ...node, below: [], rows: 0 }]));
  const roots = [];
  for (const node of byDigest.values()) (byDigest.get(node.parent)?.below ?? roots).push(node);
  const ordered = [];
  // Without recursion: a chain may be thousands of chunks long.
  const open = roots.map((node) => [node, 0]).reverse();
  while (open.length) {
    const [node, depth] = open.pop();
    node.depth = depth;
    ordered.push(node);
    for (const below of node.below.sort((one, other) => other.heat - one.heat).reverse()) open.push([below, depth + 1]);
  }
  for (const node of [...ordered].reverse()) node.rows = node.below.length ? node.below.reduce((sum, one) => sum + one.rows, 0) : 1;
  let row = 0;
  for (const node of roots) { node.row = row; row += node.rows; }
  for (const node of ordered) { let at = node.row; for (const below of node.below) { below.row = at; at += below.rows; } }
  const deepest = Math.max(0, ...ordered.map((node) => node.depth)) + 1, hottest = Math.max(...nodes.map((node) => node.heat), 0.001);
  const wide = Math.max(14, Math.min(118, 1180 / deepest)), tall = row > 60 ? 12 : 20;
  const said = (node) => `${node.digest.slice(0, 12)}: ${node.hits} hits, heat ${node.heat.toFixed(2)}${node.pinned ? ", pinned" : ""}${node.leases ? ", leased" : ""}${goes.has(node.digest) ? `, eviction takes it as number ${goes.get(node.digest)}` : ""}`;
  const cells = ordered.map((node) => {
    const marks = [node.pinned && "pinned", node.leases && "leased", goes.has(node.digest) && goes.get(node.digest) <= 10 && "next"].filter(Boolean).join(" ");
    return h("rect", {
      class: `warm ${marks}`, x: node.depth * wide + 1, y: node.row * tall + 1, width: wide - 2, height: node.rows * tall - 2, rx: 3,
      "fill-opacity": (0.1 + 0.9 * Math.sqrt(node.heat / hottest)).toFixed(3), tabindex: 0, role: "button", "aria-label": said(node),
      click: () => chosen(node), keydown: (event) => { if (event.key === "Enter") chosen(node); },
    }, h("title", {}, said(node)));
  });
  return h("div", { class: "tree" }, h("svg", { width: deepest * wide + 2, height: row * tall + 2, viewBox: `0 0 ${deepest * wide + 2} ${row * tall + 2}`, "aria-label": "prefix tree" }, cells));
}

export { percent };
