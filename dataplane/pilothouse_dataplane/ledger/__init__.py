"""What a run's worker must not forget: leases, the journal of decisions, writes, approvals, dead letters. base.py says
what a ledger is, postgres.py is one, migrations/ makes its tables."""
