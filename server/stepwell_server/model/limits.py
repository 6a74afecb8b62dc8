"""Default limits. Each error that names one says its number."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
DAY_MS = 86_400_000
CLAIM_LEFT_MS = 600_000
"""For so long the row of a claim stays that nobody holds, so that whoever read it meets its next version."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes that the server accepts, in bytes unless the name says otherwise. Source: DESIGN, default limits."""

    event_bytes: int = MIB
    send_events: int = 5_000
    send_bytes: int = 4 * MIB
    result_bytes: int = 2 * MIB
    failure_bytes: int = 64 * KIB
    journal_bytes: int = 64 * MIB
    journal_steps: int = 10_000
    name_bytes: int = 256
    key_bytes: int = 128
    metadata_bytes: int = 8 * KIB
    condition_bytes: int = 2 * KIB
    json_depth: int = 128
    schema_bytes: int = 256 * KIB
    schema_parts: int = 20_000
    branches: int = 1_000
    invoke_depth: int = 100
    frame_bytes: int = 4 * MIB
    frame_soft_bytes: int = 64 * KIB
    frame_items: int = 128
    batch_bytes: int = 2 * MIB
    wait_ms: int = 366 * DAY_MS
    dedup_ms: int = DAY_MS
    page_size: int = 1_000
    functions_per_app: int = 10_000
    triggers_per_function: int = 10
    capacity: int = 100_000
    residents: int = 150_000


LIMITS = Limits()
