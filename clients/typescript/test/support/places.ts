// Where things lie in the checkout.

import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout; this file runs as clients/typescript/build/test/support/places.js. */
export const ROOT = resolve(fileURLToPath(new URL("../../../../..", import.meta.url)));

/** The compiled apps of the end-to-end tests, with those in Python beside them. */
export const APPS = join(ROOT, "clients", "typescript", "build", "test", "e2e", "apps");
