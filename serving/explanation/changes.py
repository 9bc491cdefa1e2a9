"""What would be answered if something were otherwise: facts still to come, and other circumstances.

Each is decided by the scene: what is still to come as of a moment after the decision, when the
request and its order are history, the rest as of the decision's own cutoff, and with it what would
have been known before the request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple, cast

from features.events import (
    Dispute,
    Event,
    Label,
    OrderUpdate,
    OutcomeStatus,
    RefundOutcome,
    Return,
    ReturnStatus,
)
from features.events import (
    Verdict as LabelVerdict,
)
from features.ledger import LEDGER, Fact
from features.money import DAY_MS
from rules.decision import Action, Mode, Outcome, RuleResult
from rules.engine import ListHit, ListMatch
from serving.explanation.scene import Scene
from serving.explanation.words import entity_name
from serving.facts import FACTS, MEANING
from serving.language import Language
from serving.scorer import Verdict
from serving.store.indexing import StoredEvent

NOTHING_COMES_BACK: Final = frozenset(
    ("ITEM_NOT_RECEIVED", "MISSING_ITEM", "EMPTY_BOX", "SUBSCRIPTION_CANCELLED")
)
"""Reasons for a refund of what the customer says not to have."""

_NEXT: Final[Mapping[str | None, tuple[ReturnStatus, ...]]] = {
    None: ("RECEIVED", "ACCEPTED", "REJECTED", "LABEL_CREATED", "IN_TRANSIT", "LOST"),
    "LABEL_CREATED": ("RECEIVED", "ACCEPTED", "REJECTED", "IN_TRANSIT", "LOST"),
    "IN_TRANSIT": ("RECEIVED", "ACCEPTED", "REJECTED", "LOST"),
    "RECEIVED": ("ACCEPTED", "REJECTED"),
    "LOST": ("RECEIVED",),
}
"""Where a return may go from where it stands."""

_DELIVERED_BEFORE: Final = (1, 7, 35)
"""Days before the request that a delivery nobody told of may have been."""

_SETTLED: Final[tuple[OutcomeStatus, ...]] = ("COMPLETED", "DECLINED", "CANCELED")
"""Outcomes after which there is nothing left to wait for."""

_WAITS: Final = (7, 30, 90)
_MOST: Final = 3
"""So many open disputes, unsettled rules and the like are gone through."""


class Supposed(NamedTuple):
    """Something that is otherwise, and what was decided then.

    ``is_to_come`` where it was decided later than the request; ``happened_at`` is when it came, if
    it came since.
    """

    kind: str
    sentence: str
    verdict: Verdict
    is_to_come: bool
    happened_at: int | None = None


def facts_to_come(scene: Scene, base: Verdict, language: Language) -> Iterator[Supposed]:
    """What may still be told of the refund, its order and its customer, one by one."""
    yield from _returns(scene, language)
    yield from _delivery(scene, base, language)
    yield from _disputes(scene, language)
    yield from _verdicts(scene, language)
    yield from _outcomes(scene, language)
    yield from _waits(scene, language)


def other_circumstances(scene: Scene, base: Verdict, language: Language) -> Iterator[Supposed]:
    """What a rule, an entry of a list or a fact that was not known has to do with the answer."""
    yield from _unsettled(scene, base, language)
    yield from _lists(scene, language)
    yield from _rules(scene, base, language)


# --- still to come -------------------------------------------------------------------------------


def _to_come(
    scene: Scene, kind: str, sentence: str, event: Event, came: StoredEvent | None
) -> Supposed:
    at = None if came is None else came.known_at
    return Supposed(kind, sentence, scene.decide_after(event), True, at)


def _returns(scene: Scene, language: Language) -> Iterator[Supposed]:
    """The goods on their way back, from where they were."""
    request, say = scene.request, language.say
    names: list[dict[str, str]] = [{"refund_id": request.refund_id}]
    if request.order_id is not None:
        names.append({"order_id": request.order_id})
    known = sorted(
        (event for named in names for event in scene.before("return", **named)),
        key=lambda event: event.known_at,
    )
    if not known and request.reason in NOTHING_COMES_BACK:
        return
    standing = known[-1].payload if known else {}
    # A return is told of as it was before: under another name it would be another case.
    named = {c: standing[c] for c in ("refund_id", "order_id") if c in standing} or names[0]
    told = {
        "LABEL_CREATED": say("Once a return label is made"),
        "IN_TRANSIT": say("Once the return is on its way"),
        "RECEIVED": say("Once the return is scanned as received"),
        "ACCEPTED": say("Once the return has passed inspection"),
        "REJECTED": say("Were the return to fail inspection"),
        "LOST": say("Were the return reported lost"),
    }
    for status in _NEXT.get(standing.get("status"), ()):
        came = [e for name in names if (e := scene.came("return", status=status, **name))]
        first = min(came, key=lambda event: event.known_at, default=None)
        event = Return(known_at=scene.told_at, status=status, **named)
        yield _to_come(scene, f"return_{status.lower()}", told[status], event, first)


def _delivery(scene: Scene, base: Verdict, language: Language) -> Iterator[Supposed]:
    """A delivery that nobody told of: on the day that was told since, or on some.

    It was before the request, so that it is decided as if it had been known by then.
    """
    request = scene.request
    if request.order_id is None or not math.isnan(base.row["delivered_age_days"]):
        return
    came = scene.came("order_update", status="DELIVERED", order_id=request.order_id)
    delivered_at = came.payload.get("delivered_at") if came else None
    since_order = base.row["ordered_age_days"]
    days: Sequence[float] = [d for d in _DELIVERED_BEFORE if not d >= since_order][-2:]
    if delivered_at is not None:
        days = [(scene.cutoff - delivered_at) / DAY_MS]
    for before in days:
        if before < 0:
            continue
        said = language.say(
            "Had it been reported that the delivery was {duration} before the claim",
            duration=language.duration(before),
        )
        event = OrderUpdate(
            known_at=scene.told_before, order_id=request.order_id, status="DELIVERED",
            delivered_at=scene.cutoff - round(before * DAY_MS),
        )  # fmt: skip
        at = None if came is None else came.known_at
        yield Supposed(f"delivered_{round(before)}", said, scene.decide_had(event), False, at)


def _disputes(scene: Scene, language: Language) -> Iterator[Supposed]:
    """Each open dispute won, and lost."""
    standing = {e.payload["dispute_id"]: e for e in scene.before("dispute")}
    still_open = [
        e for e in standing.values()
        if not e.payload.get("outcome") and e.payload.get("stage") != "CHARGEBACK_REVERSED"
    ]  # fmt: skip
    for event in still_open[-_MOST:]:
        name = event.payload["dispute_id"]
        told = {
            "WON": language.say("Were the open dispute {dispute} won", dispute=name),
            "LOST": language.say("Were the open dispute {dispute} lost", dispute=name),
        }
        for outcome, said in told.items():
            settled = Dispute.as_checked(
                {**event.payload, "known_at": scene.told_at, "event_id": None, "outcome": outcome}
            )
            came = scene.came("dispute", dispute_id=name, outcome=outcome)
            yield _to_come(scene, f"dispute_{outcome.lower()}", said, settled, came)


def _verdicts(scene: Scene, language: Language) -> Iterator[Supposed]:
    """The customer's latest earlier refund without a verdict: confirmed as abuse, and cleared."""
    judged = {e.payload.get("refund_id") for e in scene.before("label")}
    refund_id = next((r for r in _earlier(scene) if r not in judged), None)
    if refund_id is None:
        return
    told: Mapping[LabelVerdict, str] = {
        "REFUND_ABUSE": language.say(
            "Were the earlier refund {refund} confirmed as abuse", refund=refund_id
        ),
        "NOT_REFUND_ABUSE": language.say(
            "Were the earlier refund {refund} cleared", refund=refund_id
        ),
    }
    for verdict, said in told.items():
        event = Label(known_at=scene.told_at, refund_id=refund_id, label=verdict, source="ANALYST")
        came = scene.came("label", refund_id=refund_id, label=verdict)
        kind = "abuse_confirmed" if verdict == "REFUND_ABUSE" else "abuse_cleared"
        yield _to_come(scene, kind, said, event, came)


def _outcomes(scene: Scene, language: Language) -> Iterator[Supposed]:
    """An earlier refund that was open, of this order and of this customer: declined, and paid."""
    settled = {*scene.refused}
    settled |= {e.payload["refund_id"] for e in scene.before("refund_outcome")}
    of_order = [] if scene.request.order_id is None else _earlier(
        scene, order_id=scene.request.order_id
    )  # fmt: skip
    open_ones = (
        next((r for r in some if r not in settled), None) for some in (of_order, _earlier(scene))
    )
    for refund_id in dict.fromkeys(r for r in open_ones if r is not None):
        told: Mapping[OutcomeStatus, str] = {
            "DECLINED": language.say(
                "Were the refund {refund}, which was open, declined", refund=refund_id
            ),
            "COMPLETED": language.say(
                "Were the refund {refund}, which was open, paid", refund=refund_id
            ),
        }
        for status, said in told.items():
            event = RefundOutcome(known_at=scene.told_at, refund_id=refund_id, status=status)
            came = scene.came("refund_outcome", refund_id=refund_id, status=status)
            kind = "refund_declined" if status == "DECLINED" else "refund_paid"
            yield _to_come(scene, kind, said, event, came)


def _waits(scene: Scene, language: Language) -> Iterator[Supposed]:
    """Time alone, as far as waiting longer brings another answer; nobody waits once it is settled.

    The same request sent again gets its stored answer, so it is said what a new decision would be.
    """
    own = scene.request.refund_id
    if any(scene.came("refund_outcome", refund_id=own, status=status) for status in _SETTLED):
        return
    answered: Action | None = None
    for days in _WAITS:
        verdict = scene.decide_after(days=days)
        if verdict.decision.action is not answered:
            said = language.say_of(
                days,
                "Were it decided anew {value} day later, with nothing else happening in between",
                "Were it decided anew {value} days later, with nothing else happening in between",
            )
            yield Supposed(f"wait_{days}", said, verdict, True)
        answered = verdict.decision.action


def _earlier(scene: Scene, **said: Any) -> list[str]:
    """Other refunds asked for before, by the customer if nothing else is said, the latest first."""
    said = said or {"customer_id": scene.record["keys"]["customer"]}
    found = [e.payload["refund_id"] for e in reversed(scene.before("refund_request", **said))]
    return [refund_id for refund_id in found if refund_id != scene.request.refund_id]


# --- other circumstances -------------------------------------------------------------------------


def _unsettled(scene: Scene, base: Verdict, language: Language) -> Iterator[Supposed]:
    """Each rule that held the refund for want of a fact, with a fact by which it does not."""
    examples = {rule.id: rule.examples.miss for rule in scene.policy.document.rules}
    unknown = [r for r in _calling(base) if r.outcome is Outcome.UNKNOWN]
    for result in unknown[:_MOST]:
        for example in examples.get(result.rule_id, ()):
            facts = {
                name: _as_fact(name, example[name])
                for name in result.unknown_facts
                if example.get(name) is not None
            }
            if not facts:
                continue
            verdict = scene.decide(facts=facts)
            if any(r.rule_id == result.rule_id and r.outcome is Outcome.MISS
                   for r in verdict.decision.rules):  # fmt: skip
                told = [_fact_told(scene, name, value, language) for name, value in facts.items()]
                said = language.say(
                    "Were it known that {facts}, which settles rule {rule}",
                    facts=language.listed(told), rule=result.rule_id,
                )  # fmt: skip
                yield Supposed("fact_known", said, verdict, False)
                break


def _as_fact(name: str, value: Any) -> Fact:
    """A value of a policy's example, as facts have it."""
    match FACTS[name]:
        case "double":
            return float(value)
        case "strings":
            return tuple(value)
        case _:
            return cast(Fact, value)


def _fact_told(scene: Scene, name: str, value: Fact, language: Language) -> str:
    if isinstance(value, bool):
        words = language.say("yes") if value else language.say("no")
    elif isinstance(value, float):
        is_of_order = name in LEDGER or name.endswith("asked_minor")
        currency = scene.request.currency if is_of_order else scene.rates.base
        words = language.value(value, MEANING[name].unit, currency)
    else:
        words = ", ".join(value) if isinstance(value, tuple) else str(value)
    return language.say("{fact} is {value}", fact=name, value=words)


def _calling(verdict: Verdict) -> list[RuleResult]:
    """The live rules that call for more than ALLOW."""
    return [
        r for r in verdict.decision.rules if r.mode is Mode.LIVE and r.calls_for is not Action.ALLOW
    ]


def _lists(scene: Scene, language: Language) -> Iterator[Supposed]:
    """Each entry off its list, and all off the block list."""
    lists = scene.circumstances.lists
    for hit in lists.block[:_MOST]:
        said = language.say(
            "Were the {entity} not on the block list ({reason})",
            entity=entity_name(hit.entity, language), reason=hit.reason,
        )  # fmt: skip
        yield _without_entries(scene, said, block=_but(lists.block, hit))
    if len(lists.block) > 1:
        said = language.say("Were nothing of this request on the block list")
        yield _without_entries(scene, said, block=())
    for hit in lists.allow[:_MOST]:
        said = language.say(
            "Were the {entity} not on the allow list ({reason})",
            entity=entity_name(hit.entity, language), reason=hit.reason,
        )  # fmt: skip
        yield _without_entries(scene, said, allow=_but(lists.allow, hit))


def _but(hits: Sequence[ListHit], one: ListHit) -> tuple[ListHit, ...]:
    return tuple(hit for hit in hits if hit is not one)


def _without_entries(scene: Scene, said: str, **changed: tuple[ListHit, ...]) -> Supposed:
    circumstances = scene.circumstances
    lists: ListMatch = replace(circumstances.lists, **changed)  # type: ignore[arg-type]
    verdict = scene.decide(circumstances=replace(circumstances, lists=lists))
    return Supposed("list_entry_off", said, verdict, False)


def _rules(scene: Scene, base: Verdict, language: Language) -> Iterator[Supposed]:
    """Each rule that calls for the answer gone from the policy, and all of them."""
    calling = [r.rule_id for r in _calling(base) if r.calls_for >= base.decision.action]
    for rule_id in islice(calling, _MOST):
        said = language.say("Were rule {rule} not in the policy", rule=rule_id)
        verdict = scene.decide(policy=scene.policy.without(rule_id))
        yield Supposed("rule_off", said, verdict, False)
    if len(calling) > 1:
        policy = scene.policy
        for rule_id in calling:
            policy = policy.without(rule_id)
        said = language.say_of(
            len(calling),
            "Were that {value} rule that calls for it not in the policy",
            "Were none of the {value} rules that call for it in the policy",
        )
        yield Supposed("rules_off", said, scene.decide(policy=policy), False)
