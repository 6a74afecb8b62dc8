// Notices from the I/O thread that the other one is blocked, and names the code that blocks it.

import { writeSync } from "node:fs";
import { EXECUTING, type FromIo } from "./news.js";

const LOOK_MS = 1000;
const PAUSE_TIMEOUT_MS = 500;
const FRAMES_MAX = 3;
const STDERR = 2;

/** Asks now and then for an answer. When none comes, it looks once where the other thread is. */
export class Watchdog {
  #timer: NodeJS.Timeout | undefined;
  #askedAt: number | undefined;
  #blocked: string | undefined;
  /** Somebody debugs the process: it may stand at a breakpoint, and to look would send it on. */
  #debugged = true;

  constructor(private readonly post: (news: FromIo) => void) {}

  start(): void {
    this.#timer = setInterval(() => {
      if (this.#askedAt === undefined) {
        this.#askedAt = performance.now();
        this.post({ kind: "ping" });
      } else if (this.#blocked === undefined && !this.#debugged) void this.#report();
    }, LOOK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** The other thread is not blocked. */
  answered(debugged: boolean): void {
    this.#debugged = debugged;
    if (this.#blocked !== undefined && this.#askedAt !== undefined) {
      const seconds = ((performance.now() - this.#askedAt) / 1000).toFixed(1);
      this.post({
        kind: "log",
        level: "warn",
        message: `the event loop was blocked for ${seconds} s by ${this.#blocked}`,
      });
    }
    this.#askedAt = undefined;
    this.#blocked = undefined;
  }

  async #report(): Promise<void> {
    this.#blocked = "code that cannot be looked at (a synchronous call of the system, perhaps)";
    const found = await whereabouts().catch(() => undefined);
    if (this.#blocked === undefined) return; // it was free in time
    if (found !== undefined)
      this.#blocked = found.executing ? `${found.place}; executing: ${found.executing}` : found.place;
    // Neither through the port nor by this thread's process.stderr: both need the thread that is blocked.
    writeSync(
      STDERR,
      `stepwell: error: the event loop is blocked by ${this.#blocked}. Heartbeats go on, but no run of this worker does: ` +
        "move long computations to a thread of their own\n",
    );
  }
}

/** Stops the main thread for a moment, to read where it is. */
async function whereabouts(): Promise<{ place: string; executing: string } | undefined> {
  const { Session } = await import("node:inspector");
  const session = new Session();
  const urls = new Map<string, string>();
  session.connectToMainThread();
  try {
    session.on("Debugger.scriptParsed", ({ params }) => urls.set(params.scriptId, params.url));
    const paused = new Promise<Frame[] | undefined>((resolve) => {
      setTimeout(resolve, PAUSE_TIMEOUT_MS, undefined);
      session.once("Debugger.paused", ({ params }) => resolve(params.callFrames));
    });
    session.post("Debugger.enable");
    session.post("Debugger.pause");
    const frames = await paused;
    if (frames === undefined) return undefined;
    return { place: placeOf(frames, urls), executing: await executing(session) };
  } finally {
    session.post("Debugger.resume");
    session.post("Debugger.disable");
    session.disconnect();
  }
}

interface Frame {
  readonly functionName: string;
  readonly location: { readonly scriptId: string; readonly lineNumber: number };
}

function placeOf(frames: readonly Frame[], urls: ReadonlyMap<string, string>): string {
  const own = frames
    .map(({ functionName, location }) => ({
      name: functionName || "(anonymous)",
      url: urls.get(location.scriptId) ?? "",
      line: location.lineNumber + 1,
    }))
    .filter(({ url }) => url !== "" && !url.startsWith("node:"));
  const shown = own.slice(0, FRAMES_MAX).map(({ name, url, line }) => `${name} (${url.split("/").at(-1)}:${line})`);
  return shown.join(" in ") || "code of Node";
}

/** What the worker of the main thread says that it executes; see Worker. */
async function executing(session: import("node:inspector").Session): Promise<string> {
  return new Promise((resolve) => {
    const expression = `globalThis[Symbol.for("${EXECUTING}")]?.() ?? ""`;
    session.post("Runtime.evaluate", { expression, returnByValue: true }, (_error, answer) => {
      resolve(typeof answer?.result.value === "string" ? answer.result.value : "");
    });
  });
}
