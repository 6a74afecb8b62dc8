// An app with a function whose schema is none.

import { App } from "../../../src/index.js";

const app = new App("misdescribed");
app.function({ id: "f", inputSchema: { type: "nonsense" } }, () => null);
await app.run();
