// Where things lie in the checkout.

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout; this file runs as clients/typescript/build/test/support/places.js. */
export const ROOT = resolve(fileURLToPath(new URL("../../../../..", import.meta.url)));
