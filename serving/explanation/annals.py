"""What is on file about one decision: rules, warnings, what persons said, the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import orjson

from rules.policy import CompiledRule, Policy
from serving.explanation.happenings import verdict
from serving.explanation.parts import AuditTold, Note, RuleTold
from serving.language import Language
from serving.store.decisions import Decision
from serving.store.reviews import Act
from serving.store.store import Store


def rules_told(
    decision: Decision, policy: Policy | None, language: Language
) -> tuple[RuleTold, ...]:
    """Every rule of a decision: those that hit, those not settled, those that missed.

    Each in the order of the policy, shadow rules among them. A record names what missed by id
    alone: the rest is from ``policy``, the one that decided. Texts of a policy are its author's,
    and stand as they are.
    """
    decided = decision.record["decision"]
    settles = decided["source"] in ("RULE", "RATE_LIMIT")
    rules = {rule.id: rule for rule in policy.rules} if policy else {}
    answered = decided["action"] if settles else None
    return (
        *(_evaluated(rule, "hit", answered) for rule in decided["hits"]),
        *(_evaluated(rule, "unknown", answered) for rule in decided["unknowns"]),
        *(_missed(rule, rules.get(rule["rule_id"]), language) for rule in decided["misses"]),
    )


def _evaluated(
    rule: Mapping[str, Any], outcome: Literal["hit", "unknown"], answered: str | None
) -> RuleTold:
    """A rule as it was recorded; ``answered`` is the action, where rules settled it."""
    return RuleTold(
        rule_id=rule["rule_id"],
        version=rule["version"],
        mode=rule["mode"],
        stage=rule["stage"],
        outcome=outcome,
        action=rule["action"] if outcome == "hit" else rule["calls_for"],
        description=rule["description"],
        reason=rule["reason"],
        unknown_facts=tuple(rule["unknown_facts"]),
        decisive=rule["mode"] == "live" and rule["calls_for"] == answered,
    )


def _missed(rule: Mapping[str, Any], known: CompiledRule | None, language: Language) -> RuleTold:
    result = known.miss if known and known.miss.version == rule["version"] else None
    unknown = language.say("The policy that this rule is of is not at hand.")
    return RuleTold(
        rule_id=rule["rule_id"],
        version=rule["version"],
        mode=rule["mode"],
        stage=result.stage.value if result else "",
        outcome="miss",
        action=result.action.value if result else "",
        description=result.description if result else unknown,
        reason=result.reason if result else "",
    )


def warnings_of(decision: Decision) -> tuple[str, ...]:
    """What the sender of the request was warned of, as it was answered."""
    return tuple(each["msg"] for each in decision.response["data"].get("warnings", ()))


def notes_of(store: Store, refund_id: str, language: Language) -> tuple[Note, ...]:
    """What people did on the reviews of a refund, and verdicts on it, the oldest first."""
    _, acts = store.reviews_of(refund_id, 1)
    notes = [act_told(act, language) for act in acts]
    with_verdict = {act.at for act in acts if act.abuse is not None}  # told with the act
    for event in store.refund_events(refund_id):
        if event.event_type == "label" and event.known_at not in with_verdict:
            author = event.payload.get("reviewer") or language.say("not named")
            notes.append(Note(event.known_at, author, verdict(event.payload, language).title))
    return tuple(sorted(notes, key=lambda note: note.at))


def act_told(act: Act, language: Language) -> Note:
    """What a person did on a review, in words.

    >>> from serving.language import ENGLISH
    >>> act_told(Act("r", "s", 5, "denied", "Ann", "Signed for.", abuse=True), ENGLISH).said
    'Denied: it is abuse'
    """
    say = language.say
    match act.act, act.abuse:
        case "approved", True:
            said = say("Approved, though it is abuse")
        case "approved", False:
            said = say("Approved: it is no abuse")
        case "approved", _:
            said = say("Approved, without a verdict on abuse")
        case "denied", True:
            said = say("Denied: it is abuse")
        case "denied", False:
            said = say("Denied, though it is no abuse")
        case "denied", _:
            said = say("Denied, without a verdict on abuse")
        case "information_requested", _:
            said = say("Asked for information")
        case "approval_proposed", True:
            said = say("Proposed to approve it, though it is abuse")
        case "approval_proposed", False:
            said = say("Proposed to approve it: it is no abuse")
        case "approval_proposed", _:
            said = say("Proposed to approve it, without a verdict on abuse")
        case "proposal_withdrawn", _:
            said = say("Withdrew the proposal to approve it")
        case "noted", _:
            said = say("Noted")
        case "reopened", _:
            said = say("Reopened it")
        case _ if act.assignee:
            said = say("Assigned to {person}", person=act.assignee)
        case _:
            said = say("Assigned to nobody")
    return Note(act.at, act.actor, said, act.justification or "")


def audit_of(store: Store, refund_id: str, most: int = 200) -> tuple[AuditTold, ...]:
    """The latest audit entries about a refund, the oldest first; what is personal stays out."""
    with store.database.read() as connection:
        found = store.audit_log.latest(connection, subject=f"refund:{refund_id}", limit=most)
    return tuple(
        AuditTold(
            entry.seq, entry.at, entry.actor, entry.action, orjson.loads(entry.content),
            erased=entry.is_erased,
        )
        for entry in reversed(found)
    )  # fmt: skip
