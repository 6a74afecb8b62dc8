// The addresses of a server's nodes: which is tried next.

import { UsageError } from "./errors.js";

const ADDRESS = /^(?:https?:\/\/)?(?:\[[\da-f:.]+\]|[^\s:/@[\]]+):(?<port>\d{1,5})$/i;
const PORT_MAX = 65_535;

/** Reads "host:port,host:port". Each may begin with "https://", for TLS. Throws UsageError. */
export function parseAddresses(text: string): string[] {
  return text.split(",").map((part) => {
    const one = part.trim();
    const port = Number(ADDRESS.exec(one)?.groups?.["port"]);
    if (port >= 1 && port <= PORT_MAX) return one;
    throw new UsageError(`address ${JSON.stringify(one)} is not host:port, or https://host:port for TLS`);
  });
}

/** They are tried in their order; one that failed goes to the back. */
export class Addresses {
  #list: readonly string[];

  /** `first` of them is tried first: it is drawn, so that processes spread over the nodes. */
  constructor(text: string, first = Math.random()) {
    const list = parseAddresses(text);
    const at = Math.floor(first * list.length);
    this.#list = [...list.slice(at), ...list.slice(0, at)];
  }

  /** The address to try. */
  get next(): string {
    return this.#list[0] as string;
  }

  /** Moves an address to the back, unless another call has done so already. */
  failed(address: string): void {
    if (this.next === address) this.#list = [...this.#list.slice(1), address];
  }
}
