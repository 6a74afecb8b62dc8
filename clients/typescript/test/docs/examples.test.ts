// Every TypeScript example of README.md compiles, and does what its hidden comment says.
//
// The comment follows the block, one line each:
//
//     send EVENT JSON        sends an event; the lines below are about the run it starts
//     send-also EVENT JSON   sends an event; the lines below stay with their run
//     invoke FUNCTION JSON   starts a run
//     parked                 waits until it is parked
//     advance DURATION       moves the server's clock
//     cancel                 asks for its end
//     output JSON            the run completes with this
//     status STATUS          the run gets there
//     keys KEY …             its journal holds these outcomes
//     prints LINE            the block is a script that prints this line

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import ts from "typescript";
import { ROOT } from "../support/places.js";
import { Process, Server, ended, reached } from "../support/processes.js";

const PACKAGE = join(ROOT, "clients", "typescript");
const FOLDER = join(PACKAGE, "build", "docs");
const PAGE = join(PACKAGE, "README.md");
const BLOCK = /^```ts\n(?<code>.*?)^```\n(?:<!-- example\n(?<orders>.*?)-->)?/gms;

interface Example {
  readonly title: string;
  readonly file: string;
  readonly app: string;
  readonly orders: readonly string[];
}

/** The examples, written to files that import the compiled SDK. */
function write(): Example[] {
  mkdirSync(FOLDER, { recursive: true });
  const found: Example[] = [];
  const text = readFileSync(PAGE, "utf8");
  for (const match of text.matchAll(BLOCK)) {
    const { code = "", orders = "" } = match.groups ?? {};
    const title = [...text.slice(0, match.index).matchAll(/^## (.*)$/gm)].at(-1)?.[1] ?? "Introduction";
    const file = join(FOLDER, `example${found.length + 1}.ts`);
    const local = code
      .replaceAll(/from "stepwell"/g, 'from "../src/index.js"')
      .replaceAll(/from "stepwell\/testing"/g, 'from "../src/testing.js"');
    writeFileSync(file, local);
    const app = /new App\("(.*?)"\)/.exec(code)?.[1] ?? "";
    found.push({ title, file, app, orders: orders.split("\n").filter(Boolean) });
  }
  return found;
}

/** What the compiler has against the examples; they are compiled beside. */
function compile(examples: readonly Example[]): string {
  const path = join(PACKAGE, "tsconfig.json");
  const { options } = ts.parseJsonConfigFileContent(
    ts.readConfigFile(path, ts.sys.readFile.bind(ts.sys)).config,
    ts.sys,
    PACKAGE,
  );
  const program = ts.createProgram(
    examples.map(({ file }) => file),
    { ...options, noEmit: false, outDir: FOLDER, rootDir: FOLDER },
  );
  const found = [...ts.getPreEmitDiagnostics(program), ...program.emit().diagnostics];
  return ts.formatDiagnostics(found, {
    getCanonicalFileName: (name) => name,
    getCurrentDirectory: () => PACKAGE,
    getNewLine: () => "\n",
  });
}

const examples = write();

describe("examples", () => {
  let server: Server;

  before(async () => {
    server = await Server.start();
  });
  after(() => server[Symbol.asyncDispose]());

  test("they compile", () => {
    assert.ok(examples.length >= 6);
    assert.equal(compile(examples), "");
  });

  for (const [index, { title, file, app, orders }] of examples.entries()) {
    if (orders.length === 0) continue;
    test(`${title} (${index + 1})`, async () => {
      const path = file.replace(/ts$/, "js");
      const prints = orders.filter((one) => one.startsWith("prints ")).map((one) => one.slice("prints ".length));
      if (prints.length > 0) {
        const log = join(server.folder, `script${index}.log`);
        await using script = new Process([process.execPath, path], log, { STEPWELL_ADDRESS: server.address });
        script.start();
        assert.equal(await script.ended(), 0, script.text());
        const said = script.text().trimEnd().split("\n");
        assert.deepEqual(said, prints);
        return;
      }
      await using worker = server.worker(path);
      await worker.connect();
      const play = new Play(server, app);
      for (const order of orders) await play.carryOut(order);
    });
  }
});

/** Carries out the lines of one example. */
class Play {
  #runId = "";

  constructor(
    private readonly server: Server,
    private readonly app: string,
  ) {}

  async carryOut(order: string): Promise<void> {
    const { client } = this.server;
    const [, verb = "", rest = ""] = /^(\S+) ?(.*)$/.exec(order) ?? [];
    const [, name = "", json = "null"] = /^(\S+) ?(.*)$/.exec(rest) ?? [];
    switch (verb) {
      case "send": {
        const { runIds } = await client.getEvent(await client.send(name, JSON.parse(json)));
        assert.equal(runIds.length, 1, order);
        this.#runId = runIds[0] as string;
        return;
      }
      case "send-also":
        await client.send(name, JSON.parse(json));
        return;
      case "invoke":
        this.#runId = (await client.start(`${this.app}/${name}`, JSON.parse(json))).runId;
        return;
      case "parked":
        await reached(client, this.#runId, ({ status }) => status === "PARKED");
        return;
      case "advance":
        assert.ok((await client.advanceClock(rest)).complete);
        return;
      case "cancel":
        await client.cancelRun(this.#runId);
        return;
      case "output": {
        const run = await ended(client, this.#runId);
        assert.deepEqual([run.status, run.output], ["COMPLETED", JSON.parse(rest)], JSON.stringify(run.failure));
        return;
      }
      case "status":
        await reached(client, this.#runId, ({ status }) => status === rest);
        return;
      case "keys": {
        const journal = await client.journal(this.#runId);
        const seen = journal.filter(({ number, kind }) => number > 0 && kind === "RUN").map(({ key }) => key);
        assert.deepEqual(seen, rest.split(" "));
        return;
      }
      default:
        assert.fail(`no order ${order}`);
    }
  }
}
