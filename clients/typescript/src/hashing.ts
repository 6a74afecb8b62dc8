// BLAKE2b with a digest length as its parameter, as the protocol asks for; node:crypto has it in full length only.

import { blake2b } from "@noble/hashes/blake2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";

/** The hash of an input that strict mode compares. */
export function inputHash(data: Uint8Array): Uint8Array {
  return blake2b(data, { dkLen: 16 });
}

/** 32 hex digits derived from run and key, so that every attempt and every worker gets the same. */
export function idempotencyToken(runId: string, key: string): string {
  return bytesToHex(blake2b(utf8ToBytes(`${runId}\0${key}`), { dkLen: 16 }));
}

/** One run's part of the hash of residents; see Heartbeat.resident_hash. */
export function runDigest(runId: string, turn: number): bigint {
  return BigInt(`0x${bytesToHex(blake2b(utf8ToBytes(`${runId}:${turn}`), { dkLen: 8 }))}`);
}

/** Random numbers in [0, 1) that are the same for the same seed (sfc32). */
export function seededRandom(seed: string): () => number {
  const words = new Uint32Array(blake2b(utf8ToBytes(seed), { dkLen: 16 }).buffer);
  let [a = 0, b = 0, c = 0, d = 0] = words;
  return () => {
    const sum = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
}
