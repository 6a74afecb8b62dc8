// Things that a test waits for, in order.

const PATIENCE_MS = 20_000;

export class Queue<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  #wake: (() => void) | undefined;

  put(item: T): void {
    this.#items.push(item);
    this.#wake?.();
  }

  /** The next one; fails if none comes. */
  async get(what: string): Promise<T> {
    const late = setTimeout(() => this.#wake?.(), PATIENCE_MS);
    try {
      if (this.#items.length === 0) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      if (this.#items.length === 0) throw new Error(`${what}: not within ${PATIENCE_MS / 1000} s`);
      return this.#items.shift() as T;
    } finally {
      clearTimeout(late);
    }
  }

  /** The next one that fits; those before it are dropped. */
  async find(fits: (item: T) => boolean, what: string): Promise<T> {
    for (;;) {
      const item = await this.get(what);
      if (fits(item)) return item;
    }
  }

  /** What is there now, taken out. */
  drain(): T[] {
    return this.#items.splice(0);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      if (this.#items.length === 0) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      while (this.#items.length > 0) yield this.#items.shift() as T;
    }
  }
}

/** The first true thing that `look` answers; for signals that nothing tells. */
export async function until<T>(look: () => T | Promise<T>, what: string): Promise<NonNullable<T>> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (performance.now() > end) throw new Error(`${what}: not within ${PATIENCE_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
