// What bodies do to the world: a line in the file that EFFECTS names.

import { appendFileSync } from "node:fs";
import type { StepContext } from "../../../src/index.js";

/** Notes that a body executes; answers a number that no other execution has. */
export function effect({ runId, key, attempt }: StepContext<any>): string {
  const nonce = `${process.pid}-${process.hrtime.bigint()}`;
  const file = process.env["EFFECTS"];
  if (file !== undefined) appendFileSync(file, `${[runId, key, attempt, nonce].join("\t")}\n`);
  return nonce;
}
