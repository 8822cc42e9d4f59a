/**
 * Replies of RESP2 and RESP3 turned into one form, and arguments as commands take them. Pure.
 *
 * Commands are sent undecoded, so text is always a Buffer; maps are flat arrays in RESP2, and arrays, Maps or objects
 * in RESP3, by library; numbers with a fraction are text in RESP2.
 */

/** An argument of a command. */
export type Argument = string | Buffer;

/** Text, or bytes where bytes matter. */
export type Text = string | Uint8Array;

/** The arguments of a command; nothing is left out, numbers are written out. */
export function words(...args: (Argument | number | null | undefined | (Argument | number)[])[]): Argument[] {
  return args.flat().flatMap((one) => (one == null ? [] : typeof one === "number" ? String(one) : one));
}

/** `word value` where there is a value, else nothing. */
export function option(word: string, value: Argument | number | null | undefined): (Argument | number)[] {
  return value == null ? [] : [word, value];
}

/** Text as bytes. */
export function raw(value: Text): Buffer {
  return typeof value === "string"
    ? Buffer.from(value, "utf8")
    : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

/** A reply as text. */
export function text(value: unknown): string {
  if (value == null) return "";
  return value instanceof Uint8Array ? raw(value).toString("utf8") : String(value);
}

/** A reply as text, null as null. */
export function maybeText(value: unknown): string | null {
  return value == null ? null : text(value);
}

/** A reply as bytes. */
export function bytes(value: unknown): Buffer {
  return value instanceof Uint8Array ? raw(value) : Buffer.from(text(value), "utf8");
}

/** A reply as a number; 0 for none. */
export function number(value: unknown): number {
  if (typeof value === "number") return value;
  return value == null ? 0 : Number(text(value));
}

/** Whether a reply is 1. */
export const flag = (value: unknown): boolean => number(value) === 1;

/** A reply as a number, null as null. */
export function maybeNumber(value: unknown): number | null {
  return value == null ? null : number(value);
}

/** A reply as a list; none for null. */
export function list(value: unknown): unknown[] {
  if (value == null) return [];
  return Array.isArray(value) ? value : [...(value as Iterable<unknown>)];
}

/** A map, whichever protocol and library it came by. */
export function mapping(reply: unknown): Map<string, unknown> {
  const found = new Map<string, unknown>();
  if (Array.isArray(reply)) for (let at = 0; at + 1 < reply.length; at += 2) found.set(text(reply[at]), reply[at + 1]);
  else if (reply instanceof Map) for (const [name, value] of reply) found.set(text(name), value);
  else if (reply) for (const name of Object.keys(reply)) found.set(name, (reply as Record<string, unknown>)[name]);
  return found;
}

/** META. */
export function document(value: unknown): unknown {
  return value == null ? null : JSON.parse(text(value));
}

/** A time to live in milliseconds as seconds; null for never. */
export function seconds(milliseconds: unknown): number | null {
  const ms = maybeNumber(milliseconds);
  return ms === null || ms < 0 ? null : ms / 1_000;
}

/** A map for a person: text where bytes are, numbers where numbers are. */
export function fields(reply: unknown): Record<string, unknown> {
  return Object.fromEntries([...mapping(reply)].map(([name, value]) => [name, plain(value)]));
}

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    const said = text(value);
    return /^-?\d+(\.\d+)?$/.test(said) && said.length < 16 ? Number(said) : said;
  }
  if (Array.isArray(value)) return value.map(plain);
  return value instanceof Map ? fields(value) : value;
}

/** `ttl` in seconds; none for the container's own, Infinity for none. */
export function expiry(ttl: number | null | undefined): Argument[] {
  if (ttl == null) return [];
  return ttl === Infinity ? ["PERSIST"] : ["PX", String(Math.ceil(ttl * 1_000))];
}

/** Slices of a list: of so many items, and of items that weigh at most so much together, unless it is one alone. */
export function batches<T>(items: readonly T[], size: number, most = 0, weigh = (_: T): number => 0): T[][] {
  const out: T[][] = [];
  let sum = 0;
  for (const item of items) {
    const weight = weigh(item);
    const last = out.at(-1);
    if (last && last.length < size && (sum += weight) <= most) last.push(item);
    else out.push([item]), (sum = weight);
  }
  return out;
}

/** Bytes of the arguments of an item. */
export const weight = (row: Argument[]): number => row.reduce((sum, one) => sum + Buffer.byteLength(one), 0);
