// BLAKE2b with a digest length as its parameter, as the protocol asks for; node:crypto has it in full length only.

import { blake2b } from "@noble/hashes/blake2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";

/** 32 hex digits derived from run and key, so that every attempt and every worker gets the same. */
export function idempotencyToken(runId: string, key: string): string {
  return bytesToHex(blake2b(utf8ToBytes(`${runId}\0${key}`), { dkLen: 16 }));
}

/** One run's part of the hash of residents; see Heartbeat.resident_hash. */
export function runDigest(runId: string, turn: number): bigint {
  return BigInt(`0x${bytesToHex(blake2b(utf8ToBytes(`${runId}:${turn}`), { dkLen: 8 }))}`);
}
