/** `llmcache-client/documents`: an index of documents (`RAG.*`). */

import type { Embed } from "./cache.js";
import type { RedisClient } from "./drivers.js";
import { LlmcacheError, NoCache } from "./errors.js";
import { type Link, type LinkOptions, linkOf } from "./link.js";
import * as r from "./replies.js";
import { type Argument, option, raw, words } from "./replies.js";
import { type Vector, arguments_, blob, floats } from "./vectors.js";

/** A document: to be added, or one that was found. `ttl` and `age` are in seconds. */
export interface Document {
  id: string;
  text: string;
  vector?: Vector | undefined;
  meta?: Record<string, unknown> | null | undefined;
  tags?: readonly string[] | undefined;
  tokens?: number | undefined;
  ttl?: number | null | undefined;
  similarity?: number | null | undefined;
  /** What the order is by, where words were asked for. */
  score?: number | undefined;
  /** The passage with most of the words, of a search with `snippet`. */
  snippet?: string | undefined;
}

/** What a search asks for besides the query. */
export interface DocumentQuery {
  /** How many; default 10. */
  k?: number;
  /** How many of the best are passed over. */
  offset?: number;
  filter?: string;
  similarity?: number;
  /**
   * Words to be found by, of an index created with `words: "english"`: `word`, `+word` (must occur), `-word` (must not),
   * `"some words"`, `begin*`, `word~` (one edit away). With a query both orders become one; without (`null`) words alone.
   */
  words?: string;
  /** How the orders by meaning and by words become one: `{ rrf: k }`, `{ linear: weight of the meaning }`. Default RRF 60. */
  fuse?: { rrf: number } | { linear: number };
  /** Words of a snippet around those found; `true` for the server's default. */
  snippet?: number | true;
  /** What stands before and after a word in a snippet; default `<b>` and `</b>`. */
  marks?: readonly [string, string];
  /** Diversity: 1 is relevance alone. */
  mmr?: number;
  /** A budget of tokens. */
  tokens?: number;
  ef?: number;
  fields?: readonly string[];
  signal?: AbortSignal;
}

// Ids that RAG.MADD would read as options of the document before.
const OPTION_WORDS = /^(TEXT|META|TAGS|TOKENS|EX|PX|EXAT|PXAT|PERSIST|FP32|FP16|VALUES|NOVECTOR|TRUNCATE)$/i;
const BATCH = 1_000;
const BATCH_BYTES = 16 << 20;

function documentOf(reply: unknown): Document {
  const m = r.mapping(reply);
  const vector = m.get("vector");
  return {
    id: r.text(m.get("id")),
    text: r.text(m.get("text")),
    meta: r.document(m.get("meta")) as Document["meta"],
    tags: r.list(m.get("tags")).map(r.text),
    tokens: r.maybeNumber(m.get("tokens")) ?? undefined,
    ttl: r.seconds(m.get("ttl")),
    similarity: r.maybeNumber(m.get("similarity")) ?? (m.has("similarity") ? null : undefined),
    score: r.maybeNumber(m.get("score")) ?? undefined,
    snippet: r.maybeText(m.get("snippet")) ?? undefined,
    vector: vector instanceof Uint8Array ? floats(vector) : undefined,
  };
}

function rowOf(document: Document, vector: Vector | null): Argument[] {
  return words(
    raw(document.id),
    vector ? ["FP32", blob(vector)] : "NOVECTOR",
    ["TEXT", raw(document.text)],
    option("META", document.meta && JSON.stringify(document.meta)),
    document.tags?.length ? ["TAGS", document.tags.length, ...document.tags] : null,
    option("TOKENS", document.tokens),
    r.expiry(document.ttl),
  );
}

export class Documents {
  readonly #link: Link;
  readonly #embed: Embed | undefined;

  constructor(
    client: RedisClient,
    readonly name: string = "documents",
    options: LinkOptions & { embed?: Embed } = {},
  ) {
    this.#link = linkOf(client, options);
    this.#embed = options.embed;
  }

  /** Creates the index: dim, matryoshka, model, ttl, quant, index, m, efc, ef, maxentries, maxmemory, words. */
  async create(settings: Record<string, string | number> = {}): Promise<void> {
    const args = Object.entries(settings).flatMap(([word, value]) => [word.toUpperCase(), value]);
    await this.#link.send(words("RAG.CREATE", this.name, args));
  }

  async #vector(text: string, signal?: AbortSignal): Promise<Vector> {
    if (!this.#embed) throw new LlmcacheError("a text needs an index that has `embed`");
    return this.#embed(text, { signal });
  }

  /**
   * Stores documents, embedding those without a vector; a document of the same id is replaced. How many are new.
   * With `embed: false` one without a vector is kept without: found by its id, by filters and by words.
   */
  async add(documents: readonly Document[], options: { embed?: boolean; signal?: AbortSignal } = {}): Promise<number> {
    const alone: Argument[][] = [];
    const rows: Argument[][] = [];
    for (const document of documents) {
      const vector = document.vector ?? (options.embed === false ? null : await this.#vector(document.text, options.signal));
      const row = rowOf(document, vector);
      (OPTION_WORDS.test(document.id) ? alone : rows).push(row);
    }
    let added = 0;
    for (const batch of r.batches(rows, BATCH, BATCH_BYTES, r.weight)) {
      const reply = await this.#link.send(words("RAG.MADD", this.name, batch.length, batch.flat()), options.signal);
      for (const one of r.list(reply)) added += r.number(one);
    }
    for (const row of alone) added += r.number(await this.#link.send(["RAG.ADD", this.name, ...row], options.signal));
    return added;
  }

  /**
   * The nearest documents, best first: diverse with `mmr` below 1, within a budget of `tokens`; by meaning, by `words`
   * (with `null` as the query) or by both.
   */
  async search(query: string | Vector | null, options: DocumentQuery = {}): Promise<Document[]> {
    const vector = typeof query === "string" ? await this.#vector(query, options.signal) : query;
    const { fuse, snippet, marks } = options;
    const fields = options.fields ?? [
      "id", "similarity", "text", "meta", "tags", ...(options.words ? ["score"] : []), ...(snippet || marks ? ["snippet"] : []),
    ];
    const args = words(
      ["RAG.SEARCH", this.name, ...arguments_(vector)],
      option("WORDS", options.words && raw(options.words)),
      fuse ? ("rrf" in fuse ? ["FUSE", "RRF", fuse.rrf] : ["FUSE", "LINEAR", fuse.linear]) : null,
      option("SNIPPET", typeof snippet === "number" ? snippet : null),
      marks ? ["MARKS", ...marks] : null,
      ["COUNT", options.k ?? 10],
      option("OFFSET", options.offset),
      option("FILTER", options.filter),
      option("SIMILARITY", options.similarity),
      option("MMR", options.mmr),
      option("TOKENS", options.tokens),
      option("EF", options.ef),
      ["RETURN", fields.length, ...fields],
    );
    return r.list(await this.#link.send(args, options.signal)).map(documentOf);
  }

  /** A document by its id. */
  async get(id: string): Promise<Document | null> {
    const reply = await this.#unlessAbsent(["RAG.GET", this.name, raw(id)]);
    return reply == null ? null : documentOf(reply);
  }

  /** Removes documents by id; how many there were. */
  async delete(...ids: string[]): Promise<number> {
    let count = 0;
    for (const batch of r.batches(ids, BATCH))
      count += r.number(await this.#unlessAbsent(words("RAG.DEL", this.name, "IDS", batch.length, batch.map(raw))));
    return count;
  }

  /** The ids of all documents, or of those that a filter lets pass; read in pages. */
  async *ids(filter?: string): AsyncGenerator<string> {
    let cursor = "0";
    do {
      const reply = await this.#unlessAbsent(
        words("RAG.SCAN", this.name, cursor, "COUNT", 1_000, option("FILTER", filter)),
      );
      const [after, page] = r.list(reply);
      for (const id of r.list(page)) yield r.text(id);
      cursor = r.text(after) || "0";
    } while (cursor !== "0");
  }

  async #unlessAbsent(args: Argument[]): Promise<unknown> {
    try {
      return await this.#link.send(args);
    } catch (error) {
      if (error instanceof NoCache) return null;
      throw error;
    }
  }

  /** Settings, graph and memory. */
  async info(): Promise<Record<string, unknown>> {
    return r.fields(await this.#link.send(["RAG.INFO", this.name]));
  }

  /** Removes the index and its documents; whether there was one. */
  async drop(): Promise<boolean> {
    return r.number(await this.#link.send(["RAG.DROP", this.name])) === 1;
  }
}
