// Real processes for tests: a server, its workers, and clients of them; each is ended by its own handle.

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, type Run, type WorkerInfo } from "../../src/index.js";
import { APPS, ROOT } from "./places.js";
import { until } from "./queue.js";

/** The Python that has the server: given by scripts/test_all.py, else that of `make setup-dev`. */
const PYTHON = process.env["STEPWELL_PYTHON"] ?? join(ROOT, ".venv", "bin", "python");

const TUNED_SERVER = join(ROOT, "tests", "support", "tuned_server.py");

/** A child process whose output goes to a file. It is killed when the block ends. */
export class Process implements AsyncDisposable {
  #child: ChildProcess | undefined;

  constructor(
    readonly command: readonly [string, ...string[]],
    readonly log: string,
    private readonly variables: Readonly<Record<string, string>> = {},
  ) {}

  start(): void {
    const kept = Object.entries(process.env).filter(
      ([name]) => !name.startsWith("STEPWELL_") && name !== "NODE_V8_COVERAGE",
    );
    const out = openSync(this.log, "a");
    const [program, ...args] = this.command;
    const env = { ...Object.fromEntries(kept), PYTHONUNBUFFERED: "1", ...this.variables };
    this.#child = spawn(program, args, { stdio: ["ignore", out, out], env });
    closeSync(out);
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  /** Its exit code, or the signal that ended it. */
  async ended(): Promise<number | string> {
    await until(() => !this.running, `the end of ${this.command.join(" ")}`);
    return this.#child?.exitCode ?? this.#child?.signalCode ?? "?";
  }

  async kill(): Promise<void> {
    if (!this.running) return;
    this.signal("SIGKILL");
    await this.ended();
  }

  /** All it has written, over all its lives. */
  text(): string {
    return existsSync(this.log) ? readFileSync(this.log, "utf8") : "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Other times than the usual ones. */
interface Tuning {
  readonly lease_ms: number;
  readonly heartbeat_ms?: number;
}

/** `stepwell dev` on SQLite and a free port, which it keeps over restarts. */
export class Server extends Process {
  readonly client: Client;

  private constructor(
    readonly folder: string,
    readonly address: string,
    tuning: Tuning | undefined,
  ) {
    const database = `sqlite:///${join(folder, "stepwell.db")}`;
    const program = tuning === undefined ? ["-m", "stepwell"] : [TUNED_SERVER, JSON.stringify(tuning)];
    const command = [...program, "dev", "--database", database, "--listen", address];
    super([PYTHON, ...command], join(folder, "server.log"), { PYTHONPATH: ROOT });
    this.client = new Client({ address, environment: "" });
  }

  /** A server that listens. */
  static async start(tuning?: Tuning): Promise<Server> {
    const port = await freePort();
    const server = new Server(mkdtempSync(join(tmpdir(), "stepwell-ts-")), `127.0.0.1:${port}`, tuning);
    await server.listen();
    return server;
  }

  /** Starts it, again if it has ended, and waits until it listens. */
  async listen(): Promise<void> {
    const before = this.text().split("listens on").length;
    this.start();
    await until(() => {
      if (!this.running) throw new Error(`the server did not start: ${this.text()}`);
      return this.text().split("listens on").length > before;
    }, "the server listens");
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.client.close();
    await super[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A worker that serves an app of test/e2e/apps, in TypeScript or Python, not started yet. */
  worker(app: string, variables: Readonly<Record<string, string>> = {}): AppWorker {
    return new AppWorker(this, app, variables);
  }
}

/** A process that serves an app. */
export class AppWorker extends Process {
  constructor(
    private readonly server: Server,
    app: string,
    variables: Readonly<Record<string, string>>,
  ) {
    const path = app.includes("/") ? app : join(APPS, app);
    const program = app.endsWith(".py") ? PYTHON : process.execPath;
    const name = app.replaceAll(/\W/g, "-");
    super([program, path], join(server.folder, `worker-${name}.log`), {
      STEPWELL_ADDRESS: server.address,
      ...variables,
    });
  }

  /** Starts it, and waits until the server has its session. */
  async connect(): Promise<WorkerInfo> {
    this.start();
    return until(async () => {
      if (!this.running) throw new Error(`the worker did not start: ${this.text()}`);
      const workers = await this.server.client.workers();
      return workers.find((one) => one.connected && one.instance.endsWith(`:${this.pid}`));
    }, "the worker is connected");
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** The run as soon as it fits; fails with what it does instead if it ends or stays. */
export async function reached(client: Client, runId: string, fits: (run: Run) => boolean): Promise<Run> {
  const run = await until(async () => {
    const one = await client.getRun(runId);
    return fits(one) || one.ended ? one : undefined;
  }, `run ${runId} is not reached`);
  if (!fits(run)) throw new Error(`run ${runId} ended instead: ${JSON.stringify(run)}`);
  return run;
}

/** The run once it has ended; fails with what it waits for if it does not. */
export async function ended(client: Client, runId: string, timeout = "60s"): Promise<Run> {
  const run = await client.waitRun(runId, timeout);
  if (run.ended) return run;
  throw new Error(
    `the run did not end: ${JSON.stringify([await client.getRun(runId), await client.journal(runId)], null, 1)}`,
  );
}
