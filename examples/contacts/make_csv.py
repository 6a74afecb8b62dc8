"""Writes contacts.csv: 5,000 contacts, as dirty as real files are, the same for the same seed.

It has a byte-order mark, rows in Latin-1 between rows in UTF-8, line breaks inside quotes, blank lines, rows cut short,
names left out, broken addresses, and people who stand in it twice with another spelling.

    python examples/contacts/make_csv.py
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from pathlib import Path

SEED = 20_260_101
ROWS = 5_000
HEADER = ["name", "email", "phone", "street", "postcode", "city"]
FIRST = ["Ada", "José", "Zoë", "Grace", "Jürgen", "Linus", "Maïté", "Søren", "Barbara", "Çelik", "Edsger", "Nadia"]
LAST = ["Müller", "O'Neil", "García", "Smith", "Lefèvre", "Nguyen", "Åberg", "Rossi", "Hopper", "van Dijk", "Kaya"]
STREETS = ["Hauptstraße", "Rue de l'Église", "High Street", "Calle Mayor", "Søndergade", "Via Roma"]
CITIES = ["Köln", "Lyon", "Leeds", "Málaga", "Århus", "Torino"]
BROKEN = ["{0}.example.com", "{0}@", "@example.com", "{0}@@example.com", "{0} at example.com", "{0}@example", "n/a"]


def contact(rng: random.Random, number: int) -> list[str]:
    """A contact as it should be; the number makes its address unique."""
    first, last, place = rng.choice(FIRST), rng.choice(LAST), rng.randrange(len(CITIES))
    street = f"{STREETS[place]} {rng.randint(1, 199)}"
    if rng.random() < 0.06:
        street += "\nc/o " + rng.choice(LAST)
    phone = f"+{rng.randint(30, 49)} {rng.randint(100, 999)} {rng.randint(10_000, 99_999)}"
    return [f"{first} {last}", f"person{number}@example.com", phone, street, f"{place + 1}{number:04}", CITIES[place]]


def rows(rng: random.Random) -> list[list[str]]:
    """All rows. One in twelve is not usable, in one of the usual ways."""
    made: list[list[str]] = []
    for number in range(ROWS):
        row = contact(rng, number)
        luck = rng.random()
        if luck < 0.03:
            row[1] = rng.choice(BROKEN).format(f"person{number}")
        elif luck < 0.04:
            row[0] = rng.choice(["", "  "])
        elif luck < 0.05:
            row = row[: rng.randint(0, 1)]
        elif luck < 0.085 and made:
            row = list(rng.choice(made))
            if len(row) > 1:
                spellings: list[Callable[[str], str]] = [str.upper, str.title, lambda text: f" {text} "]
                row[1] = rng.choice(spellings)(row[1])
        elif luck < 0.1:
            row[1] = f" {row[1].title()}"
        made.append(row)
    return made


def content() -> bytes:
    """The file."""
    rng = random.Random(SEED)
    out = io.BytesIO(b"\xef\xbb\xbf" + (",".join(HEADER) + "\r\n").encode())
    out.seek(0, io.SEEK_END)
    for row in rows(rng):
        line = io.StringIO()
        csv.writer(line).writerow(row)
        out.write(line.getvalue().encode("latin-1" if rng.random() < 0.15 else "utf-8"))
    return out.getvalue()


if __name__ == "__main__":
    Path(__file__).with_name("contacts.csv").write_bytes(content())
