"""Pure decisions: what was gathered and ``now`` come in, children and conditions come out."""
