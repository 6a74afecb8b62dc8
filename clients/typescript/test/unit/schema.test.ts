// JSON Schemas: what a Standard Schema becomes, and the record of three languages.

import type { StandardSchemaV1 } from "@standard-schema/spec";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as z from "zod";
import { convert } from "../../src/codec.js";
import { App, RegistrationError, event } from "../../src/index.js";
import { derived } from "../../src/schema.js";
import { ROOT } from "../support/places.js";

const SHARED = join(ROOT, "tests", "support", "schemas");

const Order = z.object({
  id: z.string(),
  count: z.int(),
  price: z.number(),
  paid: z.boolean(),
  tags: z.array(z.string()),
  note: z.string().nullish(),
  customer: z.object({ email: z.string(), phone: z.string().optional() }),
  lines: z.array(z.object({ sku: z.string(), count: z.int() })),
  stock: z.record(z.string(), z.int()),
  placed: z.iso.datetime(),
  get parent(): z.ZodOptional<z.ZodNullable<typeof Order>> {
    return Order.nullish();
  },
});

/** A library that says nothing of JSON Schema. */
const silent: StandardSchemaV1<string, string> = {
  "~standard": { version: 1, vendor: "silent", validate: (value) => ({ value: String(value) }) },
};

function read(text: Uint8Array): unknown {
  const { $schema: _, ...schema } = JSON.parse(new TextDecoder().decode(text) || "{}") as Record<string, unknown>;
  return schema;
}

test("a Standard Schema becomes the schema of the JSON that it reads", () => {
  const cases: [StandardSchemaV1 | undefined, unknown][] = [
    [undefined, {}],
    [silent, {}],
    [z.any(), {}],
    [z.bigint(), {}],
    [z.string(), { type: "string" }],
    [z.iso.date().transform((text) => new Date(text)), { type: "string", format: "date" }],
    [z.object({ at: z.coerce.date().optional() }), { type: "object", properties: { at: {} } }],
    [z.object({ n: z.number().default(3) }), { type: "object", properties: { n: { default: 3, type: "number" } } }],
    [z.strictObject({}), { type: "object", properties: {}, additionalProperties: false }],
  ];
  for (const [schema, expected] of cases) {
    const made = read(derived(schema)) as Record<string, unknown>;
    if (expected !== null && made["pattern"] !== undefined) delete made["pattern"];
    assert.deepEqual(made, expected);
  }
  assert.equal(derived(z.any()).length, 0, "what says nothing is no schema");
});

test("a library that cannot describe a schema leaves it out", () => {
  const schema = {
    "~standard": {
      ...silent["~standard"],
      jsonSchema: {
        input: () => {
          throw new Error("no");
        },
      },
    },
  };
  assert.equal(derived(schema).length, 0);
});

test("each trigger says what it takes, and inputSchema overrules all", () => {
  const app = new App("shop");
  const a = event("a", z.object({ n: z.number() }));
  const on = [a, "b", { event: event("c/*", z.object({ m: z.string() })), if: "true" }] as const;
  const schemas = (id: string, options: object) => {
    const spec = app.function({ id, on, ...options }, () => null).spec();
    return [spec.inputSchema, ...spec.triggers.map((one) => one.schema)].map(read);
  };
  const takes = (properties: object) => ({ type: "object", properties, required: Object.keys(properties) });
  const [n, m] = [takes({ n: { type: "number" } }), takes({ m: { type: "string" } })];
  assert.deepEqual(schemas("derived", {}), [{}, n, {}, m]);
  assert.deepEqual(schemas("input", { input: z.string() }), [{ type: "string" }, n, {}, m]);
  const given = { required: ["id"] };
  assert.deepEqual(schemas("given", { inputSchema: given }), [given, given, given, given]);
  assert.deepEqual(schemas("free", { input: z.string(), inputSchema: {} }), [{}, {}, {}, {}]);
  const sole = app.function({ id: "sole", on: a, output: z.iso.datetime() }, () => "").spec();
  assert.deepEqual(read(sole.inputSchema), n);
  assert.equal((read(sole.outputSchema) as { type: string }).type, "string");
});

test("what is no schema is refused where it is given", () => {
  const loop: Record<string, unknown> = {};
  loop["loop"] = loop;
  for (const inputSchema of [[], "{}", null, loop]) {
    assert.throws(
      () => new App("shop").function({ id: "drip", inputSchema: inputSchema as never }, () => null),
      (error: Error) => error instanceof RegistrationError && /function drip: inputSchema/.test(error.message),
    );
  }
});

// The Python tests let the server's judge try all samples on typescript.json.
test("the order is the one that the samples are tried on", () => {
  const kept = readFileSync(join(SHARED, "typescript.json"), "utf8");
  assert.equal(new TextDecoder().decode(derived(Order)), kept.trim());
});

test("what fits is read, and what does not is refused", () => {
  const samples = JSON.parse(readFileSync(join(SHARED, "samples.json"), "utf8")) as Record<
    "fits" | "misfits",
    { name: string; value: unknown }[]
  >;
  for (const { name, value } of samples.fits) assert.ok(convert(value, Order, name).placed);
  for (const { name, value } of samples.misfits) assert.throws(() => convert(value, Order, name), /does not fit/);
});
