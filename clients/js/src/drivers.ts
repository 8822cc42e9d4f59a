/**
 * The two client libraries behind one interface: send a command undecoded, tell which node a key is at, open a
 * connection of its own there. Nothing here knows a command of the module.
 */

import type { Argument } from "./replies.js";

/** What this package needs of a client of node-redis (`redis`, 4.6 and newer) or of its cluster. */
export interface NodeRedisLike {
  sendCommand(...args: any[]): Promise<any>;
  duplicate(...args: any[]): any;
}

/** What this package needs of a client of ioredis or of its cluster. */
export interface IoRedisLike {
  callBuffer(command: string, ...args: any[]): Promise<any>;
  duplicate(...args: any[]): any;
}

/** A client of node-redis or ioredis, of a server or a cluster. */
export type RedisClient = NodeRedisLike | IoRedisLike;

/** A connection that is nobody else's. */
export interface Own {
  send(args: Argument[]): Promise<unknown>;
  /** Whether the process may end while nothing waits here. */
  hold(busy: boolean): void;
  close(): void;
}

export interface Driver {
  /** Over the user's own connection; `args[1]` is the key. */
  send(args: Argument[], signal: AbortSignal): Promise<unknown>;
  /** The node of a key, "" where there is one server. */
  nodeOf(key: Argument): string;
  /** A connection of its own to the node of a key. */
  open(key: Argument): Promise<Own>;
}

const SLOTS = 16_384;

/** The hash slot of a key. */
export function slotOf(key: Argument): number {
  let data = Buffer.from(key as string);
  const open = data.indexOf("{");
  if (open >= 0) {
    const close = data.indexOf("}", open + 1);
    if (close > open + 1) data = data.subarray(open + 1, close);
  }
  let crc = 0;
  for (const byte of data) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
    crc &= 0xffff;
  }
  return crc % SLOTS;
}

// Blob strings as Buffers, maps as flat arrays, for node-redis 5 and newer; version 4 has the first by its own name.
const RAW = { typeMapping: { 36: Buffer, 61: Buffer, 37: Array }, returnBuffers: true };
// What is read from a connection of its own waits at the server, so no timeout of the user's may cut it.
const PATIENT_IO = { commandTimeout: undefined, socketTimeout: undefined, lazyConnect: true, maxRetriesPerRequest: 1 };

const isCluster = (client: any): boolean =>
  client.isCluster === true || (Array.isArray(client.slots) && typeof client.nodes === "function") || "masters" in client;

/** The driver of a client. */
export function driverOf(client: RedisClient): Driver {
  const any = client as any;
  // Its commands are sent in another form, to a node that it names by itself.
  if (typeof any?.getSentinelNode === "function") throw new TypeError("a client of sentinels is not served: ioredis has one that is");
  if (typeof any?.callBuffer === "function") return isCluster(any) ? ioCluster(any) : io(any);
  if (typeof any?.sendCommand === "function") return isCluster(any) ? nodeCluster(any) : node(any);
  throw new TypeError("a client of node-redis or ioredis is needed");
}

function node(client: any): Driver {
  return {
    send: (args, signal) => client.sendCommand(args, { ...RAW, abortSignal: signal, signal }),
    nodeOf: () => "",
    open: () => openNode(client),
  };
}

async function openNode(client: any): Promise<Own> {
  const { socketTimeout: _, ...socket } = client.options?.socket ?? {};
  const own = client.duplicate({ commandOptions: undefined, socket, pingInterval: undefined });
  // An error is told to whoever waits; without a listener it would end the process.
  own.on("error", () => {});
  await own.connect();
  return {
    send: (args) => own.sendCommand(args, RAW),
    hold: (busy) => (busy ? own.ref?.() : own.unref?.()),
    close: () => (own.destroy ?? own.disconnect).call(own)?.catch?.(() => {}),
  };
}

function nodeCluster(cluster: any): Driver {
  const at = (key: Argument) => cluster.slots[slotOf(key)]?.master;
  return {
    // Not marked as read only: a replica may lag behind what this client has just written.
    send: (args, signal) => cluster.sendCommand(args[1], false, args, { ...RAW, abortSignal: signal, signal }),
    nodeOf: (key) => at(key)?.address ?? "",
    open: async (key) => openNode(await cluster.nodeClient(at(key))),
  };
}

function io(client: any): Driver {
  return {
    send: (args) => client.callBuffer(...args),
    nodeOf: () => "",
    open: async () => openIo(client),
  };
}

async function openIo(client: any): Promise<Own> {
  const own = client.duplicate({ ...PATIENT_IO, enableOfflineQueue: true, readOnly: false });
  own.on("error", () => {});
  await own.connect();
  return {
    send: (args) => own.callBuffer(...args),
    hold: (busy) => (busy ? own.stream?.ref?.() : own.stream?.unref?.()),
    close: () => own.disconnect(),
  };
}

function ioCluster(cluster: any): Driver {
  const address = (key: Argument): string => cluster.slots[slotOf(key)]?.[0] ?? "";
  // ioredis knows no keys of a module's commands and would send them anywhere, to be sent on by MOVED each time.
  const routed = (key: Argument) =>
    Object.create(cluster, {
      sendCommand: {
        value(command: any, ...rest: any[]) {
          command.slot = slotOf(key);
          return cluster.sendCommand(command, ...rest);
        },
      },
    });
  return {
    send: (args) => routed(args[1]!).callBuffer(...args),
    nodeOf: address,
    open: async (key) => {
      const at = address(key);
      const nodes: any[] = cluster.nodes("master");
      const found = nodes.find((one) => `${one.options.host}:${one.options.port}` === at) ?? nodes[0];
      if (!found) throw new Error("the cluster has no node that is known");
      return openIo(found);
    },
  };
}
