"""What is wrong with a policy, as history shows it: each finding a sentence with what to do.

Findings of counts are facts about the history given, and say how much there was of it. What is at
stake in a finding is what its requests ask for, or what a rule cost; that puts findings in order.
*Guards* (`rules.quality.PolicyCounts.guards`) are there for what cannot be settled, so their hits
make neither them nor another rule redundant.

Findings that rest on labels are made only where a 95 % interval excludes the contrary, and of no
hard rule: it refuses what the terms do not owe, also to the honest, and labels say nothing of that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rules.decision import Mode, Stage
from rules.document import Band
from rules.policy import CompiledRule, Policy
from rules.quality import FactSeen, PolicyCounts, RuleCount
from serving.language import NBSP
from training.policy_figures import LEAST_CUSTOMERS, share_of
from training.policy_judgement import Frame
from training.wording import (
    amount,
    amount_of,
    bands_in_words,
    listed,
    percent,
    span,
    things,
)

if TYPE_CHECKING:
    from training.quality_report import RuleQuality

LEAST_COMMON: Final = 10
"""Two rules that hit fewer requests together than these contradict each other nowhere that counts.
"""
LEAST_SHARE: Final = 0.5
"""From this share of a rule's hits on, another action on them is no exception but the rule."""
LEAST_RARE: Final = 0.001
"""A history that leaves room for a larger share of hits is too short to say that there are none."""
FEW_HITS: Final = 30
"""With fewer hits than these a finding says to watch, and not yet to remove."""


class Kind(StrEnum):
    """What a finding is about."""

    NEVER_HITS = "NEVER_HITS"
    MOSTLY_UNKNOWN = "MOSTLY_UNKNOWN"
    REDUNDANT = "REDUNDANT"
    NEVER_DECIDES = "NEVER_DECIDES"
    OVERRULED = "OVERRULED"
    REFUSES_THE_CLEARED = "REFUSES_THE_CLEARED"
    COSTS_MORE_THAN_IT_SAVES = "COSTS_MORE_THAN_IT_SAVES"
    BAND_NEVER_DECIDES = "BAND_NEVER_DECIDES"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, of which rules or bands, in a sentence with what to do."""

    kind: Kind
    rules: tuple[str, ...]
    sentence: str
    at_stake_minor: float = 0.0
    """What it is about in minor units of the base currency; 0 where that cannot be told."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind.value, "rules": list(self.rules), "sentence": self.sentence,
                "at_stake_minor": self.at_stake_minor}  # fmt: skip


def findings(
    policy: Policy, counts: PolicyCounts, rules: Mapping[str, RuleQuality], frame: Frame,
    currency: str, unlogged: Collection[str] = (),
) -> tuple[Finding, ...]:  # fmt: skip
    """Everything that is wrong with a policy, the dearest first; over no request, none.

    Of equal stakes they come by kind and in policy order. ``frame`` holds the refunds that
    ``counts`` kept; ``unlogged`` facts were not logged with these decisions.
    """
    if not counts.requests:
        return ()
    found = [
        *_never_hits(policy, counts),
        *_mostly_unknown(counts, unlogged),
        *_undecided(counts),
        *_overruled(counts, frame),
        *_too_dear(rules, counts, currency),
        *_bands(counts, currency),
    ]
    order = list(Kind)
    plain = [replace(f, sentence=f.sentence.replace(NBSP, " ")) for f in found]
    return tuple(sorted(plain, key=lambda f: (-f.at_stake_minor, order.index(f.kind))))


# --- counts ------------------------------------------------------------------------------------


def _never_hits(policy: Policy, counts: PolicyCounts) -> Iterator[Finding]:
    untold = []
    for rule in policy.rules:
        of = counts.rules[rule.id]
        if of.hits or 2 * of.unknowns > counts.requests:
            continue  # what is mostly unknown is told as that
        most = _most(counts.requests - of.unknowns)
        if most > LEAST_RARE:
            untold.append(of)
            continue
        todo = (
            f"{_guard(of, counts)}: keep it" if rule.id in counts.guards else
            "Keep it if it guards against what is rare and dear, else correct or remove it"
        )  # fmt: skip
        yield Finding(
            Kind.NEVER_HITS,
            (of.rule_id,),
            f"{of.rule_id} never hit in {things(counts.requests, 'request')}: at most "
            f"{percent(most, 2)} of requests are such.{_why_not(policy, rule, counts)} {todo}.",
        )
    if untold:
        most = _most(min(counts.requests - of.unknowns for of in untold))
        ids = tuple(of.rule_id for of in untold)
        yield Finding(
            Kind.NEVER_HITS,
            ids,
            f"{listed(ids)} never hit in {things(counts.requests, 'request')}, a history too short "
            f"to say more: up to {percent(most, 2)} of requests may be such.",
        )


def _most(requests: int) -> float:
    """The largest share of hits that goes with none in so many, at 95 %: the rule of three."""
    return min(1.0, 3 / requests)


def _guard(of: RuleCount, counts: PolicyCounts) -> str:
    """What a guard is there for, and what it did."""
    guarded = counts.guards[of.rule_id]
    what = f"what {listed(guarded)} cannot settle" if guarded else "what it cannot settle"
    return (
        f"It is there to hold {what}, and alone held {things(of.decisive_unknowns, 'request')} "
        "for that reason"
    )


def _why_not(policy: Policy, rule: CompiledRule, counts: PolicyCounts) -> str:
    """What its examples have and history never showed, of the example that lacks least."""
    written = {r.id: r for r in policy.document.rules}.get(rule.miss.rule_id)
    if written is None:  # a limit has no examples
        (fact,) = rule.condition.reads
        high = counts.facts[fact].high
        return "" if high is None else f" The highest {fact} was {_shown(high)}."
    gaps = [_gaps(example, counts.facts) for example in written.examples.hit]
    fewest = min(gaps, key=len)
    if not fewest:
        return " All that an example of it has occurs, but never together."
    return f" Its examples have what history never shows: {listed(fewest)}."


def _gaps(example: Mapping[str, Any], facts: Mapping[str, FactSeen]) -> list[str]:
    """Which facts of an example have a value that history never showed."""
    found = []
    for name, value in example.items():
        seen = facts.get(name)
        if seen is None or value is None:
            continue
        if not seen.known:
            found.append(f"{name}, which was never known")
        elif isinstance(value, str | bool | list | tuple):
            wanted = value if isinstance(value, list | tuple) else [value]
            if seen.all_values and not set(wanted) & seen.values:
                found.append(f"{name} {_shown(value)} (it was {_values(seen)})")
        elif seen.low is not None and seen.high is not None:
            if value > seen.high:
                found.append(f"{name} {_shown(value)} (at most {_shown(seen.high)} was seen)")
            elif value < seen.low:
                found.append(f"{name} {_shown(value)} (at least {_shown(seen.low)} was seen)")
    return found


def _values(seen: FactSeen) -> str:
    return listed(sorted(map(_shown, seen.values)))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return listed([*map(_shown, value)])
    return value if isinstance(value, str) else f"{value:,.6g}"


def _mostly_unknown(counts: PolicyCounts, unlogged: Collection[str]) -> Iterator[Finding]:
    for of in counts.rules.values():
        if 2 * of.unknowns <= counts.requests or not of.missing.keys() - set(unlogged):
            continue  # what was not logged is not the rule's fault, and the report says so
        facts = [f"{name} (on {n:,})" for name, n in of.missing.most_common(3)]
        held = (
            f" It held {of.decisive_unknowns:,} of them for a review for that reason alone."
            if of.decisive_unknowns else ""
        )  # fmt: skip
        yield Finding(
            Kind.MOSTLY_UNKNOWN,
            (of.rule_id,),
            f"{of.rule_id} could not be settled on {of.unknowns:,} of "
            f"{things(counts.requests, 'request')} ({percent(of.unknowns / counts.requests)}): "
            f"not known was {listed(facts)}.{held} Send {'it' if len(facts) == 1 else 'these'}, "
            "or write the condition so that it asks first whether it applies.",
            of.decisive_unknowns_minor,
        )


def _undecided(counts: PolicyCounts) -> Iterator[Finding]:
    """Live rules that hit and without which no action had been another."""
    for of in counts.rules.values():
        if of.mode is not Mode.LIVE or not of.hits or of.decisive or of.rule_id in counts.guards:
            continue
        worth = "its reason or its follow-up is worth having"
        if of.stage is Stage.HARD:
            worth = f"{worth}, or it is to hold for customers on the allow list too"
        todo = "Remove it" if of.hits >= FEW_HITS else "Watch it, and remove it if that goes on"
        container = _container(of, counts)
        if container is None and any(counts.common(of.rule_id, guard) for guard in counts.guards):
            continue  # without the guard's hits, which it is not there for, this one may decide
        if container is None:
            yield Finding(
                Kind.NEVER_DECIDES,
                (of.rule_id,),
                f"{of.rule_id} hit {things(of.hits, 'request')} and decided none: each was "
                f"answered as severely by others ({_beside(of, counts)}). {todo}, unless "
                f"{worth}.",
                of.payable_minor,
            )
        elif container.hits == of.hits and container.mode is Mode.LIVE and not container.decisive:
            if list(counts.rules).index(of.rule_id) < list(counts.rules).index(container.rule_id):
                yield Finding(
                    Kind.REDUNDANT,
                    (of.rule_id, container.rule_id),
                    f"{of.rule_id} and {container.rule_id} hit the same "
                    f"{things(of.hits, 'request')}, and neither decides without the other. Keep "
                    "one of the two.",
                    of.payable_minor,
                )
        else:
            yield Finding(
                Kind.REDUNDANT,
                (of.rule_id, container.rule_id),
                f"{of.rule_id} is redundant: wherever it hit ({of.hits:,}), {container.rule_id} "
                f"hit too ({container.hits:,} in all) and calls for {container.action.value}; "
                f"{of.rule_id} never decided. {todo}.",
                of.payable_minor,
            )


def _container(of: RuleCount, counts: PolicyCounts) -> RuleCount | None:
    """The narrowest live rule, as severe at least, that hits all that this one hits.

    A risk rule makes no hard rule or limit redundant, for the allow list lifts it; and no guard
    makes any.
    """
    others = [
        other
        for other in counts.rules.values()
        if other is not of
        and other.mode is Mode.LIVE
        and other.rule_id not in counts.guards
        and other.action >= of.action
        and (other.stage is not Stage.RISK or of.stage is Stage.RISK)
        and counts.common(of.rule_id, other.rule_id) == of.hits
    ]
    return min(others, key=lambda other: other.hits, default=None)


def _beside(of: RuleCount, counts: PolicyCounts) -> str:
    common = {
        other.rule_id: counts.common(of.rule_id, other.rule_id)
        for other in counts.rules.values()
        if other is not of and other.mode is Mode.LIVE
    }
    named = [f"{name} on {n:,}" for name, n in sorted(common.items(), key=lambda c: -c[1])[:2] if n]
    return listed(named) if named else "bands, lists or fallback"


def _bands(counts: PolicyCounts, currency: str) -> Iterator[Finding]:
    for of in counts.bands:
        if of.decisive:
            continue
        words = bands_in_words([of.band], currency)[0].rstrip(".")
        why = (
            f"{things(of.reached, 'request')} reached it, and each was answered as severely by "
            "rules, lists or another band"
            if of.reached
            else f"no score of {things(counts.requests, 'request')} reached it"
        )
        is_short = _most(counts.requests) > LEAST_RARE
        todo = "Watch it, and remove it if that goes on" if is_short else "Remove it"
        yield Finding(
            Kind.BAND_NEVER_DECIDES,
            (_band_name(of.band),),
            f"A band never decides ({words}): {why}. {todo}, or place it where it matters.",
        )


def _band_name(band: Band) -> str:
    return f"band {band.action.value}"


# --- labels ------------------------------------------------------------------------------------


def _overruled(counts: PolicyCounts, frame: Frame) -> Iterator[Finding]:
    """Two live rules that hit together and call for different actions."""
    live = [
        of for id, of in counts.rules.items()
        if of.mode is Mode.LIVE and of.hits and id not in counts.guards
    ]  # fmt: skip
    for one, other in itertools.combinations(live, 2):
        common = counts.common(one.rule_id, other.rule_id)
        if one.action is other.action or common < LEAST_COMMON:
            continue
        mild, severe = (one, other) if one.action < other.action else (other, one)
        cleared = _cleared(mild, severe, frame)
        if cleared is not None and severe.stage is not Stage.HARD:
            yield Finding(
                Kind.REFUSES_THE_CLEARED,
                (mild.rule_id, severe.rule_id),
                f"{severe.rule_id} refuses {things(common, 'request')} that {mild.rule_id} would "
                f"have held for a review, and most of them were honest: {cleared}. Let "
                f"{severe.rule_id} hold instead of refuse, or except these from it.",
                _asked_by_both(mild, severe, frame),
            )
        elif common >= LEAST_SHARE * mild.hits:
            yield Finding(
                Kind.OVERRULED,
                (mild.rule_id, severe.rule_id),
                f"{mild.rule_id} calls for {mild.action.value} and {severe.rule_id} for "
                f"{severe.action.value} on the same {things(common, 'request')}, "
                f"{percent(common / mild.hits)} of the hits of {mild.rule_id}, which has no say "
                f"there. Decide which of the two is meant, and except these from the other.",
                _asked_by_both(mild, severe, frame),
            )


def _cleared(mild: RuleCount, severe: RuleCount, frame: Frame) -> str | None:
    """How many of the refunds hit by both are abuse, where that is surely less than half."""
    refunds = _hit_by_both(mild, severe, frame)
    labelled = refunds.labelled
    share = share_of(refunds.abuse[labelled], refunds.customer[labelled])
    if math.isnan(share.value) or not share.interval.high < LEAST_SHARE:
        return None
    abuse = int(refunds.abuse[labelled].sum())
    return (
        f"{abuse:,} abuse of {share.refunds:,} labelled ({percent(share.value)}, with 95 % "
        f"confidence {span(share.interval, percent)})"
    )


def _hit_by_both(one: RuleCount, other: RuleCount, frame: Frame) -> Frame:
    return frame.at(
        np.intersect1d(np.array(one.places, np.int64), np.array(other.places, np.int64))
    )


def _asked_by_both(one: RuleCount, other: RuleCount, frame: Frame) -> float:
    """What the refunds that both hit ask for, as far as it is known."""
    return float(np.nansum(_hit_by_both(one, other, frame).payable_minor))


def _too_dear(
    rules: Mapping[str, RuleQuality], counts: PolicyCounts, currency: str
) -> Iterator[Finding]:
    for rule_id, rule in rules.items():
        saved = rule.saved
        if rule.count.stage is Stage.HARD:
            continue
        if saved.customers < LEAST_CUSTOMERS or not saved.interval.high < 0:
            continue
        todo = "Narrow it, make it milder, or put it in the shadow"
        if rule_id in counts.guards:
            todo = f"{_guard(rule.count, counts)}: narrow what it hits, and let it go on so"
        yield Finding(
            Kind.COSTS_MORE_THAN_IT_SAVES,
            (rule_id,),
            f"{rule_id} costs more than it saves: on {things(saved.refunds, 'labelled refund')} "
            f"that it alone decided, {amount(-saved.minor, currency)} (what it saves is, with 95 % "
            f"confidence, {span(saved.interval, amount_of(currency))}); of its labelled hits "
            f"{percent(rule.precision.share.value)} are abuse. {todo}.",
            -saved.minor,
        )
