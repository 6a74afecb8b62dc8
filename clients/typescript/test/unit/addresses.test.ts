// Several addresses: what is one, and which is tried next.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Addresses } from "../../src/addresses.js";
import { App, Client, UsageError, Worker } from "../../src/index.js";

test("an address that failed goes to the back, once", () => {
  const addresses = new Addresses(" a:1, https://b:2 ,c:3", 0.5);
  const tried = Array.from({ length: 5 }, () => {
    const address = addresses.next;
    addresses.failed(address);
    addresses.failed(address);
    return address;
  });
  assert.deepEqual(tried, ["https://b:2", "c:3", "a:1", "https://b:2", "c:3"]);
});

test("the first address is drawn", () => {
  const firsts = [0, 0.4, 0.99].map((first) => new Addresses("a:1,b:2,c:3", first).next);
  assert.deepEqual(firsts, ["a:1", "b:2", "c:3"]);
  // By chance alone all would begin with the same one once in 2^99 times.
  assert.equal(new Set(Array.from({ length: 100 }, () => new Addresses("a:1,b:2").next)).size, 2);
});

test("what is no address is refused", () => {
  const wrong = ["here", "here:", ":7777", "here:0", "here:70000", "here:7777,", "here:7777,,there:7777", "a b:1"];
  for (const address of [...wrong, "ftp://here:1", "::1:7777", "here:7777/path", "https://here", "here:1e3"]) {
    assert.throws(() => new Client({ address }), UsageError, address);
    assert.throws(() => new Worker(new App("test"), { address }), UsageError, address);
  }
  for (const address of [
    "here:1",
    "[::1]:7777",
    "https://here:443 , http://there:7777",
    "10.0.0.1:7777,10.0.0.2:7777",
  ]) {
    new Client({ address }).close();
  }
});
