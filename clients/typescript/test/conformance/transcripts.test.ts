// Every transcript of tests/conformance that applies to TypeScript, played against the core.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { decode } from "../../src/codec.js";
import { ROOT } from "../support/places.js";
import { app } from "./programs.js";
import { type Json, play } from "./replay.js";

const FOLDER = join(ROOT, "tests", "conformance", "transcripts");
const played = new Set<string>();

for (const file of readdirSync(FOLDER).filter((name) => name.endsWith(".json"))) {
  // Not JSON.parse: it would round whole numbers beyond 2^53.
  const transcripts = decode(readFileSync(join(FOLDER, file)), file) as Json[];
  describe(file, () => {
    for (const transcript of transcripts) {
      if (transcript.only !== undefined && !transcript.only.includes("typescript")) continue;
      played.add(transcript.name);
      test(transcript.name, async () => {
        const expected = transcript.steps.map((step: Json) => step.then);
        assert.deepEqual(await play(app, transcript), expected);
      });
    }
  });
}

test("there are transcripts", () => {
  assert.ok(played.size >= 75);
});
