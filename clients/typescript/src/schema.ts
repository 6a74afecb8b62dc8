// JSON Schemas (2020-12) of the values that travel: made by the libraries of Standard Schema that can, or given.

import type { StandardJSONSchemaV1, StandardSchemaV1 } from "@standard-schema/spec";
import { UsageError } from "./errors.js";

const NONE = new Uint8Array();

/** A JSON Schema, as an object. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/**
 * The schema of the JSON that a Standard Schema reads, as JSON text; none from libraries that cannot tell. What has no form in
 * JSON, such as a Date that is made of a text, may be anything.
 */
export function derived(schema: StandardSchemaV1 | undefined): Uint8Array {
  const standard = schema?.["~standard"] as Partial<StandardJSONSchemaV1.Props> | undefined;
  if (standard?.jsonSchema === undefined) return NONE;
  try {
    const made = standard.jsonSchema.input({ target: "draft-2020-12", libraryOptions: { unrepresentable: "any" } });
    return text(made);
  } catch {
    // What cannot be described is not judged by the server; the schema itself still is the judge in the function.
    return NONE;
  }
}

/** A schema that the user wrote; none where it is {}. Throws UsageError for what is no object. */
export function given(schema: JsonSchema): Uint8Array {
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
    throw new UsageError("inputSchema is no JSON Schema: give an object, or {} for a function that takes anything");
  }
  try {
    return text(schema);
  } catch (error) {
    throw new UsageError("inputSchema has no JSON form", { cause: error });
  }
}

function text(schema: JsonSchema): Uint8Array {
  const says = Object.keys(schema).some((keyword) => keyword !== "$schema");
  return says ? new TextEncoder().encode(JSON.stringify(schema)) : NONE;
}
