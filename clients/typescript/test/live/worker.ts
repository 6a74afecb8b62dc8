// The conformance worker in TypeScript: the functions that tests/conformance/live/README.md describes, as somebody would write them
// in TypeScript.

import { app } from "./app.js";
import "./steps.js";
import "./waiting.js";

const instance = `${process.env["WORKER_INSTANCE"]}:${process.pid}`;
await app.run({ instance, maxParked: Number(process.env["MAX_PARKED"]) });
