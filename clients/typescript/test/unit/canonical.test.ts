// What strict mode hashes. That other languages make the same of it is what transcripts show.

import assert from "node:assert/strict";
import { test } from "node:test";
import { inputHash } from "../../src/canonical.js";

const hash = (...inputs: unknown[]) => Buffer.from(inputHash(inputs, "the input of pay")).toString("hex");

test("inputs that are the same JSON have the same hash", () => {
  assert.equal(hash({ 10: 1, 9: 2, b: 3, a: undefined }), hash({ b: 3, 9: 2, 10: 1 }));
  assert.equal(hash(2n ** 53n), hash(2 ** 53));
  assert.equal(hash(-0), hash(0));
  assert.equal(hash(new Date(0)), hash("1970-01-01T00:00:00.000Z"));
});

test("other inputs have another hash", () => {
  const inputs = [[1], ["1"], [true], [null], [[]], [{}], [1, 2], [2, 1], [[1, 2]], []];
  assert.equal(new Set(inputs.map((one) => hash(...one))).size, inputs.length);
});

test("what has no JSON form is named", () => {
  let deep: unknown = [];
  for (let depth = 0; depth < 100_000; depth += 1) deep = [deep];
  for (const input of [() => undefined, deep]) {
    assert.throws(() => hash(input), { name: "SerializationError", message: /^the input of pay/ });
  }
});
