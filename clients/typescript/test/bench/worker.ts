// The benchmark's worker in TypeScript: what bench/app.py does at event bench/three, at bench/other.

import { parseArgs } from "node:util";
import { App } from "../../src/index.js";

const { values } = parseArgs({
  options: {
    address: { type: "string", default: "" },
    capacity: { type: "string", default: "1000" },
    steps: { type: "string", default: "3" },
    payload: { type: "string", default: "200" },
  },
});
const steps = Number(values.steps);
const output = "r".repeat(Number(values.payload) / 2 - 2);
const body = () => output;

const app = new App("bench-other");

app.function({ id: "three", on: "bench/other" }, async ({ step }) => {
  let result = "";
  for (let n = 0; n < steps; n += 1) result = await step.run("body", body);
  return result;
});

await app.run({ address: values.address, capacity: Number(values.capacity) });
