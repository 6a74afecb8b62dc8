// One HTTP/2 connection to a server, for the calls of a client or for the stream of a worker.

import type { Transport } from "@connectrpc/connect";
import { Http2SessionManager, createGrpcTransport } from "@connectrpc/connect-node";

const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** A transport of gRPC, and how to break its connection off. */
export interface Connection {
  readonly transport: Transport;
  close(): void;
}

/** Opens when it is first used. The address is "host:port", or "https://host:port" for TLS. */
export function openConnection(address: string): Connection {
  const baseUrl = /^https?:\/\//.test(address) ? address : `http://${address}`;
  const sessionManager = new Http2SessionManager(baseUrl, { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 });
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    readMaxBytes: MESSAGE_BYTES_MAX,
    writeMaxBytes: MESSAGE_BYTES_MAX,
  });
  return { transport, close: () => sessionManager.abort() };
}
