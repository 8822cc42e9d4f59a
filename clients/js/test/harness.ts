/** Servers with the module loaded, started for a test file and stopped by their pids, and clients of both libraries. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Cluster as IoCluster, Redis as IoRedis } from "ioredis";
import { createClient, createCluster } from "redis";
import { afterAll, beforeAll } from "vitest";
import type { RedisClient } from "../src/index.js";

const ROOT = resolve(import.meta.dirname, "../../..");
const BINARY = process.env["LLMCACHE_TEST_SERVER"] ?? "redis-server";
const MODULE = process.env["LLMCACHE_MODULE"] ?? join(ROOT, "target/release/libllmcache.so");

export const sleep = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** Waits for a state, never for a time; fails after a minute. */
export async function until<T>(state: () => T | Promise<T>, what: string, ms = 60_000): Promise<NonNullable<T>> {
  const end = Date.now() + ms;
  for (;;) {
    const value = await state();
    if (value) return value as NonNullable<T>;
    if (Date.now() > end) throw new Error(`did not come to be: ${what}`);
    await sleep(10);
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((done) => {
    const probe = createServer();
    probe.once("error", () => done(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => done(true)));
  });

async function freePort(): Promise<number> {
  for (;;) {
    // Below the range that the system hands out to clients; with room for the cluster's bus. Each worker has a range of
    // its own, so that the port of a server that was killed and is to be started again is taken by nobody meanwhile.
    const worker = Number(process.env["VITEST_POOL_ID"] ?? 0) % 4;
    const port = 10_500 + worker * 2_000 + Math.floor(Math.random() * 2_000);
    if ((await isFree(port)) && (await isFree(port + 10_000))) return port;
  }
}

export class Server {
  process!: ChildProcess;
  port = 0;
  readonly folder = mkdtempSync(join(tmpdir(), "llmcache-js-"));

  constructor(readonly options: Record<string, string | number> = {}) {}

  async start(): Promise<this> {
    if (!existsSync(MODULE)) throw new Error(`no module at ${MODULE}: make build`);
    for (let attempt = 0; attempt < 5; attempt++) {
      this.port ||= await freePort();
      const settings = { port: this.port, bind: "127.0.0.1", dir: this.folder, logfile: "server.log", save: "", ...this.options };
      const args = ["--loadmodule", MODULE, ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)])];
      this.process = spawn(BINARY, args, { stdio: "ignore" });
      this.process.once("error", () => {});
      if (await this.#answers()) return this;
      this.port = 0;
    }
    throw new Error(`the server did not start: ${this.log().slice(-2_000)}`);
  }

  log(): string {
    const path = join(this.folder, "server.log");
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  async #answers(): Promise<boolean> {
    for (let end = Date.now() + 30_000; Date.now() < end && this.process.exitCode === null && this.process.pid; await sleep(10)) {
      const pong = await new Promise<boolean>((done) => {
        const socket = connect(this.port, "127.0.0.1", () => socket.write("PING\r\n"));
        socket.once("data", (data) => (socket.destroy(), done(data.toString().startsWith("+PONG"))));
        socket.once("error", () => done(false));
        socket.setTimeout(2_000, () => (socket.destroy(), done(false)));
      });
      if (pong) return true;
    }
    return false;
  }

  /** Kills it as a crash would. */
  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGKILL");
    await gone;
  }

  async stop(): Promise<void> {
    await this.kill();
    const log = this.log();
    rmSync(this.folder, { recursive: true, force: true });
    if (/panicked|BUG REPORT|ASSERTION FAILED/.test(log)) throw new Error(`the server broke:\n${log.slice(-4_000)}`);
  }
}

/** Three nodes that own a third of the slots each. */
export class TestCluster {
  nodes: Server[] = [];

  async start(): Promise<this> {
    const bounds = [0, 5_461, 10_923, 16_384];
    for (let at = 0; at < 3; at++) this.nodes.push(await new Server({ "cluster-enabled": "yes", "cluster-node-timeout": 15_000 }).start());
    const wires = await Promise.all(this.nodes.map((node) => plain(node.port)));
    for (const [at, wire] of wires.entries()) {
      await wire.call("CLUSTER", "SET-CONFIG-EPOCH", String(at + 1));
      await wire.call("CLUSTER", "ADDSLOTSRANGE", String(bounds[at]), String(bounds[at + 1]! - 1));
    }
    for (const node of this.nodes.slice(1)) await wires[0]!.call("CLUSTER", "MEET", "127.0.0.1", String(node.port));
    for (const wire of wires)
      await until(async () => {
        const info = String(await wire.call("CLUSTER", "INFO"));
        return info.includes("cluster_known_nodes:3") && info.includes("cluster_state:ok");
      }, "the cluster is whole");
    for (const wire of wires) wire.disconnect();
    return this;
  }

  async stop(): Promise<void> {
    for (const node of this.nodes) await node.stop();
  }
}

/** A client of ioredis for what a test looks at beside the client that it tests. */
export async function plain(port: number): Promise<IoRedis> {
  return new IoRedis(port, "127.0.0.1");
}

/** How many clients are connected whose name is this. */
export async function connections(port: number, name: string): Promise<number> {
  const wire = await plain(port);
  const list = String(await wire.call("CLIENT", "LIST"));
  wire.disconnect();
  return list.split("\n").filter((line) => line.includes(` name=${name} `)).length;
}

export interface Made {
  client: RedisClient;
  end(): void;
}

export const KINDS = ["node-redis resp2", "node-redis resp3", "ioredis resp2", "ioredis resp3"] as const;
export type Kind = (typeof KINDS)[number];

/** A connected client of one library and protocol. */
export async function clientOf(kind: Kind, port: number, name = ""): Promise<Made> {
  const protocol = kind.endsWith("3") ? 3 : 2;
  if (kind.startsWith("node")) {
    const client = createClient({ socket: { port, host: "127.0.0.1", reconnectStrategy: 50 }, RESP: protocol, ...(name && { name }) });
    client.on("error", () => {});
    await client.connect();
    return { client: client as unknown as RedisClient, end: () => client.destroy() };
  }
  const client = new IoRedis(port, "127.0.0.1", {
    protocol, ...(protocol === 3 && { replyMapping: "resp3" }), ...(name && { connectionName: name }), retryStrategy: () => 50,
  } as object);
  client.on("error", () => {});
  await until(() => client.status === "ready", "the client is ready");
  return { client, end: () => client.disconnect() };
}

/** A connected client of a cluster. */
export async function clusterClientOf(kind: Kind, cluster: TestCluster): Promise<Made> {
  const nodes = cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port }));
  if (kind.startsWith("node")) {
    const client = createCluster({ rootNodes: nodes.map((socket) => ({ socket })), RESP: kind.endsWith("3") ? 3 : 2 });
    client.on("error", () => {});
    await client.connect();
    return { client: client as unknown as RedisClient, end: () => client.destroy() };
  }
  const client = new IoCluster(nodes, { redisOptions: { protocol: kind.endsWith("3") ? 3 : 2 } as object });
  client.on("error", () => {});
  await until(() => client.status === "ready", "the client is ready");
  return { client: client as unknown as RedisClient, end: () => client.disconnect() };
}

/** A vector that points to one of a few directions, and a bit beside it. */
export function near(axis: number, aside = 0): Float32Array {
  const vector = new Float32Array(8);
  vector[axis] = 1;
  vector[(axis + 1) % 8] = aside;
  return vector;
}

/** A server and a cluster for the tests of a file. */
export function serverAndCluster(): [Server, TestCluster] {
  const [server, cluster] = [new Server(), new TestCluster()];
  beforeAll(async () => {
    await server.start();
    await cluster.start();
  });
  afterAll(async () => {
    await server.stop();
    await cluster.stop();
  });
  return [server, cluster];
}

let count = 0;

/** A name that no other test uses. */
export const fresh = (name: string): string => `${name}-${process.pid}-${count++}`;
