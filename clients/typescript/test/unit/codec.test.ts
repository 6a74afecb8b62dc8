// Values through JSON and back.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { convert, decode, encode, read } from "../../src/codec.js";
import { SerializationError, UsageError } from "../../src/index.js";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: unknown) => new TextDecoder().decode(encode(value, "it"));
const through = (value: unknown) => decode(encode(value, "it"), "it");

const SAME: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1.5,
  1e-7,
  5e-324,
  1.7976931348623157e308,
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  2 ** 53,
  1e17,
  -(2 ** 70),
  9007199254740993n,
  -9007199254740993n,
  2n ** 64n - 1n,
  2n ** 200n,
  "",
  'quotes " and \\ and \n and \u0000 and \u2028',
  "größe ✓ 你好 😀",
  "1234567890123456789",
  [],
  {},
  [[[]], [{}]],
  { a: 1, "": 2, ключ: [null, { b: "c" }] },
  { id: 12345678901234567890n, n: 1, f: 0.1, nested: [1, 2n ** 60n + 1n] },
];

test("what JSON can say comes back as it was", () => {
  for (const value of SAME) assert.deepEqual(through(value), value);
});

test("what comes back goes out again as the same text", () => {
  for (const value of SAME) assert.equal(text(through(value)), text(value));
});

test("whole numbers beyond 2^53 come in as bigint, floats as number", () => {
  assert.equal(decode(bytes("9007199254740991"), "it"), 9007199254740991);
  assert.equal(decode(bytes("9007199254740992"), "it"), 9007199254740992n);
  assert.equal(decode(bytes("-9007199254740993"), "it"), -9007199254740993n);
  assert.equal(decode(bytes("9007199254740993.0"), "it"), 9007199254740992);
  assert.equal(decode(bytes("1e20"), "it"), 1e20);
  assert.deepEqual(decode(bytes('{"a":[1234567890123456789],"b":"1234567890123456789"}'), "it"), {
    a: [1234567890123456789n],
    b: "1234567890123456789",
  });
});

test("a number that is no safe whole number goes out as the float that it is", () => {
  assert.equal(text(1e17), "1e+17");
  assert.equal(text(2 ** 60), "1.152921504606847e+18");
  assert.equal(text(2n ** 60n), "1152921504606846976");
  assert.equal(text(5n), "5");
  assert.equal(text([0, -0]), "[0,-0.0]");
});

test("undefined is null alone and in lists, and missing in objects", () => {
  assert.equal(text(undefined), "null");
  assert.equal(text([undefined, 1]), "[null,1]");
  assert.equal(text({ a: undefined, b: null }), '{"b":null}');
});

test("dates, bytes and what has a toJSON have a form", () => {
  assert.equal(text(new Date(0)), '"1970-01-01T00:00:00.000Z"');
  assert.equal(text(new Uint8Array([1, 2, 255])), '"AQL/"');
  assert.equal(text(Buffer.from("hi")), '"aGk="');
  assert.equal(text({ price: { toJSON: () => ({ cents: 5n }) } }), '{"price":{"cents":5}}');
  class Point {
    constructor(
      readonly x: number,
      readonly y: number,
    ) {}
  }
  assert.equal(text(new Point(1, 2)), '{"x":1,"y":2}');
});

test("what has no form is refused, with its place", () => {
  const holdsItself: unknown[] = [];
  holdsItself.push(holdsItself);
  let deep: unknown = 1;
  for (let n = 0; n < 100_000; n += 1) deep = [deep];
  const cases: [unknown, RegExp][] = [
    [Number.NaN, /it: NaN has no JSON form/],
    [[1, { a: Infinity }], /it at 1\.a: Infinity has no JSON form/],
    [() => 1, /a function has no JSON form/],
    [{ a: { b: Symbol("s") } }, /it at a\.b: a symbol/],
    [new Map([[1, 2]]), /a Map has no JSON form/],
    [{ s: new Set() }, /it at s: a Set/],
    [new Error("x"), /a Error has no JSON form/],
    [new Float64Array(2), /a Float64Array/],
    [Promise.resolve(1), /a Promise/],
    [new Date(Number.NaN), /an invalid Date/],
    [holdsItself, /nested too deep, or holds itself/],
    [deep, /nested too deep, or holds itself/],
    [
      {
        get a() {
          throw new Error("broken getter");
        },
      },
      /it has no JSON form/,
    ],
  ];
  for (const [value, message] of cases) {
    assert.throws(
      () => encode(value, "it"),
      (error: Error) => {
        assert.ok(error instanceof SerializationError, String(error));
        assert.match(error.message, message);
        return true;
      },
    );
  }
});

test("what is not JSON is refused", () => {
  for (const data of ["", "01", "[1,]", "1 2", "nul", '{"a"}', "NaN", '{"a":12345678901234567890,}', "\ufeff1"]) {
    assert.throws(() => decode(bytes(data), "it"), SerializationError, data);
  }
  assert.throws(() => decode(new Uint8Array([0x22, 0xff, 0x22]), "it"), SerializationError);
});

test("of a key that comes twice the last counts", () => {
  assert.deepEqual(decode(bytes('{"a":1,"a":2}'), "it"), { a: 2 });
  assert.deepEqual(decode(bytes('{"a":1,"a":12345678901234567890}'), "it"), { a: 12345678901234567890n });
});

test("a key that is __proto__ is a key", () => {
  for (const data of ['{"__proto__":{"x":1}}', '{"__proto__":{"x":12345678901234567890}}']) {
    const value = decode(bytes(data), "it") as object;
    assert.deepEqual(Object.keys(value), ["__proto__"]);
    assert.equal(Object.getPrototypeOf(value), Object.prototype);
  }
});

test("a schema makes of it what it says", () => {
  const schema = z.object({ at: z.coerce.date(), n: z.number().default(5) });
  assert.deepEqual(read(bytes('{"at":"1970-01-01T00:00:00.000Z"}'), schema, "it"), { at: new Date(0), n: 5 });
  assert.equal(read(new Uint8Array(), undefined, "it"), null);
});

test("a schema that does not fit names the path", () => {
  const schema = z.object({ rows: z.array(z.object({ n: z.number() })) });
  assert.throws(() => convert({ rows: [{ n: "x" }] }, schema, "the data of event e"), {
    name: "SerializationError",
    message: /^the data of event e does not fit its schema: rows\.0\.n: /,
  });
});

test("a schema that throws, or is asynchronous, is named", () => {
  const schema = (validate: () => never) => ({ "~standard": { version: 1, vendor: "test", validate } }) as const;
  const broken = schema(() => {
    throw new Error("boom");
  });
  assert.throws(() => convert("x", broken, "the input"), {
    name: "SerializationError",
    message: /^the input was refused/,
  });
  const slow = schema(() => Promise.reject(new Error("later")) as never);
  assert.throws(() => convert("x", slow, "the input"), { name: "UsageError", message: /^the input: .* asynchronous/ });
  const thrower = z.string().transform(() => {
    throw new Error("boom");
  });
  assert.throws(() => convert("x", thrower, "the input"), UsageError);
});
