"""The schema's history, for alembic. Migrations go forward only: a mistake is mended by the next one.

Old and new code run side by side during a rolling update, so a migration only adds. A function that changes gets the
next number (``ledger_claim_2``) beside the old one, and what no code uses any more is dropped a release later; the
migration that drops it raises ``ledger_schema.oldest_code``. Code that finds a schema newer than itself works while its
own newest revision is at least ``oldest_code``.

Row-level security binds the owner, too (FORCE), so a migration that reads or changes rows has to go through the tenants
one by one, with ``pilothouse.tenant`` set.
"""
