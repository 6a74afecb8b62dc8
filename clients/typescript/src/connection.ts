// HTTP/2 connections to a server's nodes, for the calls of a client or for the stream of a worker.

import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { Http2SessionManager, createGrpcTransport } from "@connectrpc/connect-node";
import type { Addresses } from "./addresses.js";

const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** A transport of gRPC, and how to break its connection off. */
export interface Connection {
  readonly transport: Transport;
  close(): void;
}

/** One connection. It opens when it is first used. The address is "host:port", or "https://host:port" for TLS. */
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

/** Connections to nodes: calls go to one at a time, to the next one once that is unavailable. */
export function openConnections(addresses: Addresses): Connection {
  const open = new Map<string, Connection>();
  async function call<T>(make: (transport: Transport) => Promise<T>): Promise<T> {
    const address = addresses.next;
    const connection = open.get(address) ?? openConnection(address);
    open.set(address, connection);
    try {
      return await make(connection.transport);
    } catch (error) {
      if (ConnectError.from(error).code === Code.Unavailable) addresses.failed(address);
      throw error;
    }
  }
  const transport: Transport = {
    unary: (...args) => call((one) => one.unary(...args)),
    stream: (...args) => call((one) => one.stream(...args)),
  };
  return {
    transport,
    close: () => {
      for (const connection of open.values()) connection.close();
    },
  };
}
