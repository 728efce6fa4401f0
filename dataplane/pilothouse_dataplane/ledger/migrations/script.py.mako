"""${message}"""

from pilothouse_dataplane.ledger.migrations.statements import execute

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute("")
