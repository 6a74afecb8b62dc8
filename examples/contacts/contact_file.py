"""Reads a list of contacts: which rows can be used, what is wrong with the others. Pure, but for reading the file."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

REQUIRED = ("name", "email")
_EMAIL = re.compile(r"[a-z0-9._%+-]+@[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}")


@dataclass(frozen=True, slots=True)
class Contact:
    """One person. region is empty until the address is enriched."""

    name: str
    email: str
    phone: str = ""
    street: str = ""
    postcode: str = ""
    city: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class ContactFile:
    """What a file holds. problems: what is wrong → how many rows; fatal: why the file as a whole is no use."""

    contacts: tuple[Contact, ...] = ()
    problems: dict[str, int] = field(default_factory=dict[str, int])
    fatal: str = ""


@lru_cache(maxsize=8)
def read(path: str) -> ContactFile:
    """The file, parsed once a process."""
    try:
        return parse(Path(path).read_bytes())
    except OSError as e:
        return ContactFile(fatal=f"cannot read {path}: {e.strerror}")


def parse(content: bytes) -> ContactFile:
    """Rows in order; of a person who stands there twice, the first one."""
    # Newlines stay as they are (newline=""), so that csv can tell those inside quotes from those between rows.
    lines = csv.DictReader(io.StringIO(_text(content), newline=""), restval="")
    missing = [name for name in REQUIRED if name not in (lines.fieldnames or ())]
    if missing:
        return ContactFile(fatal=f"no column {' and no column '.join(missing)}")
    try:
        rows = list(lines)
    except csv.Error as e:
        return ContactFile(fatal=f"after line {lines.line_num}: {e}")
    found: dict[str, Contact] = {}
    problems: Counter[str] = Counter()
    for row in rows:
        contact = _contact(row)
        problem = _problem(contact) or ("the same person again" if contact.email in found else "")
        if problem:
            problems[problem] += 1
        else:
            found[contact.email] = contact
    return ContactFile(tuple(found.values()), dict(problems), "" if found else "no usable row")


def _contact(row: dict[str, str]) -> Contact:
    fields = {name: " ".join(row.get(name, "").split()) for name in ("name", "phone", "street", "postcode", "city")}
    return Contact(email=row["email"].strip().lower(), **fields)


def _problem(contact: Contact) -> str:
    if not contact.name and not contact.email:
        return "empty row"
    if not _EMAIL.fullmatch(contact.email):
        return "no e-mail address" if not contact.email else "broken e-mail address"
    return "" if contact.name else "no name"


def _text(content: bytes) -> str:
    """UTF-8 with or without a mark; bytes that are not UTF-8 are read as Latin-1, where most of them come from."""
    return content.decode("utf-8-sig", errors="latin_1_instead")


def _latin_1_instead(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("latin_1_instead", _latin_1_instead)
