"""Imports an uploaded list of contacts: validate, enrich, create, notify. It may be killed at any moment.

stepwell dev examples/contacts/app.py
stepwell events send api/contact_list.uploaded -d '{"path": "examples/contacts/contacts.csv"}'
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace

import contact_file
import database
import stepwell
from contact_file import Contact
from stepwell import Event, Retry, Step

CHUNK = 500
LOOKUP_S = float(os.environ.get("CONTACTS_LOOKUP_S", "0.2"))
REGIONS = {
    "1": "Rhineland",
    "2": "Auvergne-Rhône-Alpes",
    "3": "Yorkshire",
    "4": "Andalucía",
    "5": "Jutland",
    "6": "Piemonte",
}

app = stepwell.App("contacts")


@dataclass(frozen=True)
class Upload:
    """Data of the event that starts an import."""

    path: str


@dataclass(frozen=True)
class Report:
    """What is in the file."""

    valid: int
    problems: dict[str, int]
    fatal: str = ""


class AddressServiceDownError(Exception):
    """The address service does not answer."""


def validate(path: str) -> Report:
    """Reads the whole file once."""
    found = contact_file.read(path)
    return Report(len(found.contacts), found.problems, found.fatal)


async def enrich(path: str, first: int) -> list[Contact]:
    """Adds the region to a chunk of contacts. The service it asks is slow, and down twice for one chunk."""
    await asyncio.sleep(LOOKUP_S)
    if first == 2 * CHUNK and stepwell.current_step().attempt <= 2:
        raise AddressServiceDownError("the address service does not answer")
    chunk = contact_file.read(path).contacts[first : first + CHUNK]
    return [replace(contact, region=REGIONS.get(contact.postcode[:1], "")) for contact in chunk]


def create(upload: str, contacts: list[Contact]) -> int:
    """Inserts a chunk in one transaction, under the step's token: executed again, it does nothing."""
    database.insert_contacts(stepwell.current_step().token, upload, contacts)
    return len(contacts)


def notify(upload: str, message: str) -> None:
    """Tells whoever uploaded the file."""
    database.insert_notification(stepwell.current_step().token, upload, message)


@app.function(on="api/contact_list.uploaded")
async def import_contacts(step: Step, event: Event[Upload]) -> str:
    """Two chunks at a time; each is enriched, then created."""
    path = event.data.path
    report = await step.run(validate, path)
    if report.fatal:
        await step.run(notify, event.id, f"nothing was imported: {report.fatal}", name="notify_invalid")
        return f"refused: {report.fatal}"

    async def chunk(first: int) -> int:
        label = f"{first + 1}-{min(first + CHUNK, report.valid)}"
        again = Retry(attempts=5, initial="200ms", jitter=False)
        enriched = await step.run(enrich, path, first, name=f"enrich {label}", retries=again)
        return await step.run(create, event.id, enriched, name=f"create {label}")

    created = 0
    for first in range(0, report.valid, 2 * CHUNK):
        created += sum(await asyncio.gather(*(chunk(at) for at in (first, first + CHUNK) if at < report.valid)))
    skipped = sum(report.problems.values())
    await step.run(notify, event.id, f"{created} contacts imported, {skipped} rows left out", name="notify_success")
    return f"{created} contacts imported"


if __name__ == "__main__":
    app.run()
