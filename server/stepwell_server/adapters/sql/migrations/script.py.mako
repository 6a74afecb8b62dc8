"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
# The oldest head whose builds work with this schema too: that of the last release, if this only adds. See docs/operations.md.
least_build = ${repr(up_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
