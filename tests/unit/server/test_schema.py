"""Which schema a build takes: its own, an older one after a migration, a newer one that only adds."""

from __future__ import annotations

import pytest
from stepwell_server.adapters.sql.schema import HEAD, Standing, needs_migration, plan, revisions
from stepwell_server.model.errors import CorruptError

NEWER = "9998"


@pytest.mark.parametrize(
    ("standing", "migrates"),
    [
        (Standing(None), True),
        (Standing("0000"), True),
        (Standing(HEAD), False),
        (Standing(HEAD, "0001"), False),
        (Standing(NEWER, HEAD), False),
        (Standing(NEWER, "0001"), False),
    ],
)
def test_a_schema_is_taken_as_it_is_or_migrated(standing: Standing, migrates: bool) -> None:
    assert needs_migration(standing, "here") is migrates
    assert bool(plan(standing, "here").pending) is migrates


@pytest.mark.parametrize("standing", [Standing(NEWER), Standing(NEWER, "9997"), Standing("abc"), Standing("")])
def test_a_schema_that_this_build_cannot_work_with_is_refused(standing: Standing) -> None:
    with pytest.raises(CorruptError) as refusal:
        needs_migration(standing, "here")
    assert refusal.value.message.startswith("here ")


def test_every_revision_says_which_builds_work_with_it() -> None:
    """A later revision never admits a build that an earlier one shut out."""
    least = [script.module.least_build for script in revisions()]
    assert least == sorted(least)
    assert revisions()[-1].revision == HEAD
    for script in revisions():
        assert "0001" <= script.module.least_build <= script.revision
        assert script.doc
