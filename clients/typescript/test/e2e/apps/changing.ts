// An app whose code is another one with each value of CODE.

import { App } from "../../../src/index.js";

const code = process.env["CODE"] ?? "first";
const app = new App("changing", { deployment: code });

app.function({ id: "order" }, async ({ step }) => {
  const held = await step.run("reserve", () => "reserved");
  if (code === "other") await step.run("pause", () => null);
  else await step.sleep("1d", { name: "pause" });
  return held;
});

await app.run();
