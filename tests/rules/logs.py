"""Small policies and logged requests for the tests of what counts them."""

from __future__ import annotations

from typing import Any

import yaml

from rules.decision import Action
from rules.engine import Circumstances, Score, decide
from rules.logged import Logged
from rules.policy import Policy

KINDS = {"a": "double", "b": "double", "word": "string", "payable_minor": "double"}
DAY_MS = 86_400_000
START = 1_780_000_000_000
PLAIN = Circumstances()


def rule(id: str, when: str, action: str = "MANUAL_REVIEW", **more: Any) -> dict[str, Any]:
    """A rule on some of the facts that holds where they are large or bad, and not where zero."""
    return {"id": id, "version": 1, "stage": "risk", "when": when, "action": action,
            "reason": id.upper(), "description": f"When {when}",
            "examples": {"hit": [{"a": 9, "b": 9, "word": "bad", "payable_minor": 90_000}],
                         "miss": [{"a": 0, "b": 0, "word": "good", "payable_minor": 0}]},
            **more}  # fmt: skip


def policy_of(*rules: dict[str, Any], version: str = "1", **more: Any) -> Policy:
    document = {"version": version, "rules": list(rules), "bands": [], **more}
    return Policy.from_yaml(yaml.safe_dump(document, sort_keys=False), facts=KINDS)


def logged(
    refund: str, policy: Policy | None = None, *, probability: float | None = 0.01,
    customer: str | None = None, at: int = START, abuse: bool | None = None,
    circumstances: Circumstances = PLAIN, **facts: Any,
) -> Logged:  # fmt: skip
    """A request; with a policy, as that policy decided it."""
    payable = facts.get("payable_minor")
    loss = None if payable is None or probability is None else probability * payable
    score = None if probability is None else Score(probability, loss)
    row = Logged(refund, customer or f"c-{refund}", at, facts, score, circumstances, abuse)
    if policy is None:
        return row
    made = decide(facts, score, policy, circumstances)
    return Logged(refund, row.customer, at, facts, score, circumstances, abuse, policy.hash,
                  made.action, made.source, made.propensity, made.explored,
                  tuple(hit.rule_id for hit in made.hits))  # fmt: skip


ALLOW, REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT
