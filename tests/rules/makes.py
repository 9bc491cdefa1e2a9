"""A policy with a rule or limit of every make, and requests on which each hits, misses, is open."""

import json
from itertools import product

from hypothesis import strategies as st

from rules.decision import Action
from rules.engine import Circumstances, ListHit, ListMatch, Score, decide
from rules.policy import Policy

ALLOW, MANUAL_REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT

# One rule or limit of every make. Each reads a fact of its own: a rule's bears its name, a limit's
# counts over a window of its own. True hits, false misses, None is unknown.
MAKES = list(
    product(
        ("hard", "limit", "risk"),
        ("live", "shadow"),
        ("MANUAL_REVIEW", "PREVENT"),
        ("miss", "review"),
    )
)
RULES = {"_".join(make).lower(): make for make in MAKES}
DAYS = {name: day for day, name in enumerate([n for n in RULES if RULES[n][0] == "limit"], 1)}
FACT = {name: f"refund_count_by_customer_{DAYS[name]}d" if name in DAYS else name for name in RULES}
KINDS = {
    **{FACT[name]: "double" if name in DAYS else "bool" for name in RULES},
    "payable_minor": "double",
    "asked_minor": "double",
    "left_minor": "double",
}


def told(name: str) -> dict:
    """What rule and limit of a make have in common."""
    _, mode, action, on_unknown = RULES[name]
    common = {"id": name, "version": 1, "mode": mode, "action": action, "on_unknown": on_unknown}
    return common | {"reason": name.upper(), "description": name}


def rule(name: str, **changes) -> dict:
    examples = {"hit": [{name: True}], "miss": [{name: False}], "unknown": [{}]}
    return told(name) | {"stage": RULES[name][0], "when": name, "examples": examples} | changes


def limit(name: str, **changes) -> dict:
    return told(name) | {"by": "customer", "days": DAYS[name], "at_most": 1} | changes


def made(names=tuple(RULES), **changes) -> Policy:
    document = {
        "version": "1",
        "bands": [
            {"action": "MANUAL_REVIEW", "probability_at_least": 0.5},
            {
                "action": "PREVENT",
                "probability_at_least": 0.8,
                "expected_loss_minor_at_least": 1000,
            },
        ],
        "rules": [rule(name) for name in names if name not in DAYS],
        "limits": [limit(name) for name in names if name in DAYS and "rules" not in changes],
        **changes,
    }
    return Policy.from_yaml(json.dumps(document), facts=KINDS)


POLICY = made()
NOTHING = dict.fromkeys(RULES, False)
NO_LISTS = ListMatch()
ON_BLOCK, ON_ALLOW = ListHit("customer", "b"), ListHit("email", "a")
BLOCKED, ALLOWED = ListMatch(block=(ON_BLOCK,)), ListMatch(allow=(ON_ALLOW,))
BOTH = ListMatch(block=(ON_BLOCK,), allow=(ON_ALLOW,))
SETTLED = st.sampled_from([False, True, None])
LOW, MIDDLE, HIGH = Score(0.1, 100.0), Score(0.6, 600.0), Score(0.9, 5000.0)

requests = st.fixed_dictionaries(
    {
        "facts": st.fixed_dictionaries(dict.fromkeys(RULES, SETTLED)),
        "score": st.sampled_from([None, LOW, MIDDLE, HIGH, Score(0.9, None)]),
        "lists": st.sampled_from([NO_LISTS, BLOCKED, ALLOWED, BOTH]),
        "disposition": st.sampled_from([None, None, ALLOW, MANUAL_REVIEW, PREVENT]),
    }
)  # fmt: skip


def decided(facts=(), score=LOW, lists=NO_LISTS, policy=POLICY, **circumstances):
    given = {
        FACT.get(name, name): {True: 1.0, False: 0.0, None: None}[value] if name in DAYS else value
        for name, value in {**NOTHING, **dict(facts)}.items()
    }
    return decide(given, score, policy, Circumstances(lists, **circumstances))


def hit(*names):
    return dict.fromkeys(names, True)


def unknown(*names):
    return dict.fromkeys(names)


HARD_PREVENT, HARD_REVIEW = "hard_live_prevent_review", "hard_live_manual_review_review"
LIMIT_PREVENT, LIMIT_REVIEW = "limit_live_prevent_miss", "limit_live_manual_review_miss"
RISK_PREVENT, RISK_REVIEW = "risk_live_prevent_miss", "risk_live_manual_review_miss"
EXPLORING = made(exploration={"share": 0.05, "max_amount_minor": 1000})
SMALL = {"payable_minor": 1000.0}
