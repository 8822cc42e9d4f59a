/** What changes an answer besides the question, as a digest. Pure. */

import { createHash } from "node:crypto";

/**
 * A digest of the parts: model, system prompt, tools, earlier turns, settings. Two are equal when all their parts are,
 * in whatever order their members stand. Undefined members count as absent.
 */
export function context(parts: Record<string, unknown>): string {
  return digest(canonical(parts));
}

const digest = (data: string | Uint8Array): string => createHash("sha256").update(data).digest("hex");

/** JSON with its members in order; bytes, dates, urls, maps and sets included. What has no such form is refused. */
export function canonical(value: unknown): string {
  if (value === null || typeof value === "string" || typeof value === "boolean") return JSON.stringify(value);
  if (typeof value === "number") return Number.isFinite(value) ? JSON.stringify(value) : `{"number":"${value}"}`;
  if (typeof value === "bigint") return `{"bigint":"${value}"}`;
  if (value instanceof Uint8Array) return `{"bytes":"${digest(value)}"}`;
  if (value instanceof ArrayBuffer) return canonical(new Uint8Array(value));
  if (value instanceof Date) return `{"date":${value.getTime()}}`;
  if (value instanceof URL) return `{"url":${JSON.stringify(value.href)}}`;
  if (value instanceof RegExp) return `{"regexp":${JSON.stringify(String(value))}}`;
  if (value instanceof Set) return `{"set":[${[...value].map(canonical).sort().join()}]}`;
  if (value instanceof Map) return `{"map":[${[...value].map(canonical).sort().join()}]}`;
  if (Array.isArray(value)) return `[${value.map((one) => (one === undefined ? "null" : canonical(one))).join()}]`;
  if (typeof value === "object") {
    const json = (value as { toJSON?: () => unknown }).toJSON;
    if (typeof json === "function") return canonical(json.call(value));
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`);
    return `{${members.join()}}`;
  }
  // A function or a symbol has no form that every process would agree on: each look-up would be a miss without a word.
  throw new TypeError(`a context cannot hold a ${typeof value}`);
}
