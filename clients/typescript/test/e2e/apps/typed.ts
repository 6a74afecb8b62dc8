// An app whose functions say what they take, and one that invokes what it is told.

import * as z from "zod";
import { App, InvokeError, event } from "../../../src/index.js";

const app = new App("typed");
const shipAsked = event("ship/asked", z.object({ id: z.string(), parcels: z.int() }));

app.function(
  { id: "ship", on: [shipAsked, "ship/anyhow"], input: z.object({ id: z.string(), parcels: z.int() }) },
  ({ event }) => `shipped ${event.data.parcels} of ${event.data.id}`,
);

app.function({ id: "ask" }, async ({ step, event }) => {
  try {
    return await step.invoke(event.data.function, event.data.input);
  } catch (error) {
    if (error instanceof InvokeError) return `${error.failure?.reason}: ${error.failure?.message}`;
    throw error;
  }
});

await app.run();
