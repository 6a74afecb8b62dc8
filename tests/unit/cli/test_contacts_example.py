"""The example's list of contacts: what is read from dirty files, and that the committed one is the generated one."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "contacts"


@pytest.fixture(scope="module")
def example() -> Generator[Any]:
    """The modules of the example, importable as they are for its app."""
    sys.path.insert(0, str(FOLDER))
    try:
        import contact_file
        import make_csv

        yield contact_file, make_csv
    finally:
        sys.path.remove(str(FOLDER))


def test_the_committed_file_is_what_the_script_makes(example: Any) -> None:
    _, make_csv = example
    assert (FOLDER / "contacts.csv").read_bytes() == make_csv.content()


def test_the_committed_file_is_as_dirty_as_it_should_be(example: Any) -> None:
    contact_file, _ = example
    content = (FOLDER / "contacts.csv").read_bytes()
    found = contact_file.parse(content)
    assert content.startswith(b"\xef\xbb\xbf")
    assert b"Jos\xe9" in content
    assert "José".encode() in content
    assert b"\nc/o " in content
    assert not found.fatal
    assert 4_500 < len(found.contacts) < 4_700
    assert set(found.problems) == {"no name", "no e-mail address", "broken e-mail address", "the same person again"}
    assert any(contact.name.startswith("José") for contact in found.contacts)
    assert not any("\ufffd" in contact.name for contact in found.contacts)
    assert any("c/o" in contact.street for contact in found.contacts)


@pytest.mark.parametrize(
    ("content", "fatal"),
    [
        (b"", "no column name and no column email"),
        (b"name,mail\nAda,a@example.com\n", "no column email"),
        (b"name,email\n", "no usable row"),
        (b"name,email\nAda,broken\n", "no usable row"),
        (b"name,email\n" + b'"' + b"x" * 200_000, "after line 1: field larger than field limit (131072)"),
    ],
)
def test_a_file_that_is_no_use_says_why(example: Any, content: bytes, fatal: str) -> None:
    contact_file, _ = example
    assert contact_file.parse(content).fatal == fatal


def test_a_person_in_another_spelling_is_the_same_person(example: Any) -> None:
    contact_file, _ = example
    found = contact_file.parse(b"name,email\nAda,Ada@Example.com\nADA, ada@example.com \n")
    assert [contact.email for contact in found.contacts] == ["ada@example.com"]
    assert found.problems == {"the same person again": 1}
