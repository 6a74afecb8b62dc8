// A worker of an app, connected to a scripted server.

import { type App, Worker, type WorkerOptions } from "../../src/index.js";
import { decode } from "../../src/codec.js";
import { FakeServer, type Link } from "./fake_server.js";
import { Lines } from "./lines.js";

export interface World extends AsyncDisposable {
  readonly server: FakeServer;
  readonly worker: Worker;
  readonly link: Link;
  readonly log: Lines;
}

export async function world(app: App, options: WorkerOptions = {}, server?: FakeServer): Promise<World> {
  server ??= await FakeServer.start();
  const log = new Lines();
  const worker = new Worker(app, { address: server.address, deployment: "d1", drain: "5s", log, ...options });
  const link = await server.link();
  return {
    server,
    worker,
    link,
    log,
    async [Symbol.asyncDispose]() {
      await worker.halt().catch(() => undefined);
      await server.stop();
    },
  };
}

export function valueOf(payload: { data: Uint8Array } | undefined): unknown {
  return decode(payload?.data ?? new Uint8Array(), "a value");
}
