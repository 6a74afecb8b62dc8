// Typed calls between TypeScript and Python: a wrong shape, or an unknown function, is an error before anything starts.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Client, InvalidArgumentError } from "../../src/index.js";
import { type AppWorker, Server } from "../support/processes.js";

describe("typed calls", () => {
  let server: Server;
  let client: Client;
  let workers: AppWorker[];

  before(async () => {
    server = await Server.start();
    client = server.client;
    workers = [server.worker("typed.js"), server.worker("billing.py")];
    await Promise.all(workers.map((one) => one.connect()));
  });

  after(async () => {
    for (const one of workers) await one.kill();
    await server[Symbol.asyncDispose]();
  });

  async function runsOf(name: string): Promise<number> {
    let count = 0;
    for await (const _ of client.listRuns({ function: name })) count += 1;
    return count;
  }

  test("of steps, in both directions", async () => {
    const cases: [asker: string, target: string, input: unknown, answer: string][] = [
      ["typed/ask", "billing/refund", { receipt: "r", cents: 5 }, "5 back for r"],
      ["typed/ask", "billing/refund", { receipt: "r", cents: "5" }, "INPUT_MISMATCH: input.cents does not fit"],
      ["typed/ask", "billing/refund", { cents: 5 }, "INPUT_MISMATCH: input does not fit"],
      ["typed/ask", "billing/refund", null, "INPUT_MISMATCH: input does not fit"],
      ["typed/ask", "billing/nobody", {}, "FUNCTION_NOT_FOUND: "],
      ["billing/ask", "typed/ship", { id: "a", parcels: 2 }, "shipped 2 of a"],
      ["billing/ask", "typed/ship", { id: "a", parcels: 2.5 }, "INPUT_MISMATCH: input.parcels does not fit"],
      ["billing/ask", "typed/ship", { id: "a" }, "INPUT_MISMATCH: input does not fit"],
      ["billing/ask", "typed/ship", null, "INPUT_MISMATCH: input does not fit"],
      ["billing/ask", "typed/nobody", {}, "FUNCTION_NOT_FOUND: "],
    ];
    for (const [asker, target, input, answer] of cases) {
      const said = await client.invoke(asker, { function: target, input }, { timeout: "60s" });
      assert.ok(String(said).startsWith(answer), `${asker} asks ${target} with ${JSON.stringify(input)}: ${said}`);
    }
    assert.deepEqual(
      [await runsOf("typed/ship"), await runsOf("billing/refund")],
      [1, 1],
      "what does not fit starts none",
    );
  });

  test("of the client", async () => {
    for (const [target, input] of [
      ["typed/ship", { id: "a", parcels: "2" }],
      ["billing/refund", { receipt: "r", cents: "5" }],
    ] as const) {
      await assert.rejects(client.start(target, input), (error: Error) => {
        assert.ok(error instanceof InvalidArgumentError);
        assert.equal(error.reason, "INPUT_MISMATCH");
        assert.match(error.violations[0]?.field ?? "", /^input\.(parcels|cents)$/);
        return true;
      });
    }
  });

  test("of events, one by one", async () => {
    const statuses = await client.sendMany([
      { name: "ship/asked", data: { id: "a", parcels: 1 } },
      { name: "ship/asked", data: { id: "a", parcels: "1" } },
      { name: "ship/anyhow", data: { id: "a", parcels: "1" } },
      { name: "refund/asked", data: {} },
    ]);
    assert.deepEqual(
      statuses.map(({ outcome, reason }) => [outcome, reason]),
      [
        ["ACCEPTED", ""],
        ["REFUSED", "EVENT_MISMATCH"],
        ["ACCEPTED", ""],
        ["REFUSED", "EVENT_MISMATCH"],
      ],
    );
    assert.match(statuses[1]?.message ?? "", /data\.parcels/);
  });

  test("are shown", async () => {
    const { inputSchema, outputSchema } = await client.getFunction("billing/refund");
    assert.deepEqual((inputSchema as { required: string[] }).required, ["cents", "receipt"]);
    assert.deepEqual(outputSchema, { type: "string" });
    assert.equal((await client.getFunction("typed/ask")).inputSchema, undefined);
  });

  test("need schemas that are some", async () => {
    const worker = server.worker("misdescribed.js");
    worker.start();
    assert.notEqual(await worker.ended(), 0);
    assert.match(worker.text(), /BAD_SCHEMA: function misdescribed\/f: input_schema/);
  });
});
