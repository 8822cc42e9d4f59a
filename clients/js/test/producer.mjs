// A process that writes a message and never ends it: killed by a test.
import { createClient } from "redis";
import { Session } from "../dist/index.js";

const [port, key, id = "a1"] = process.argv.slice(2);
const client = createClient({ socket: { port: Number(port) } });
await client.connect();
const writer = await new Session(client, key).stream("assistant", { id, leaseMs: 600 });
for (const part of ["Hal", "lo ", "👋"]) await writer.write(part);
process.send(writer.seq);
setInterval(() => {}, 1_000);
