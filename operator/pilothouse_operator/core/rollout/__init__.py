"""Room of the rollout controller: steps, weights, analysis and verdicts as pure functions.

Until it governs, ``status.decide`` says so in a Rollout's conditions: a Rollout is validated, never ignored.
"""

from __future__ import annotations

NOT_GOVERNED = "NotGoverned"
NOT_GOVERNED_MESSAGE = (
    "The Rollout is valid, but this release of the operator does not run rollouts. "
    "Nothing was changed. Set the agent in the Tenant's spec.agent."
)
