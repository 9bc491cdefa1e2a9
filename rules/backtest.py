"""Two policies over the same logged requests: what each would do, and what makes the difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rules.decision import Action, Decision, Mode, RuleResult, Source, Stage
from rules.engine import Circumstances, decide
from rules.logged import Logged
from rules.policy import Policy


class Cause(NamedTuple):
    """A part of a policy that decides a request otherwise than the other policy does.

    ``id`` is that of the rule or limit, the action of the band or fallback, or the list's name.
    """

    kind: Literal["rule", "limit", "band", "list", "fallback"]
    id: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One logged request as the policy in force and as the candidate would decide it."""

    logged: Logged
    before: Decision
    after: Decision

    @property
    def moved(self) -> bool:
        """Whether the two come to different actions."""
        return self.before.action is not self.after.action

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What made the difference; see `causes`. Empty where there is none."""
        return causes(self) if self.moved else ()


def backtest(before: Policy, after: Policy, logged: Iterable[Logged]) -> Iterator[Compared]:
    """Decide every logged request under the policy in force and under a candidate.

    Both decide on the score and the expected loss as they were logged: a candidate does not grade
    itself, and a decision that was degraded stays so. Nothing is explored, as the draw depends on
    the policy, and analysts' dispositions are left out: they answered the decision that was made.
    What was answered then is not read: also the policy that answered decides anew.
    """
    for row in logged:
        facts, score, circumstances = row.facts, row.score, as_backtested(row.circumstances)
        yield Compared(
            row,
            decide(facts, score, before, circumstances),
            decide(facts, score, after, circumstances),
        )


def as_backtested(circumstances: Circumstances) -> Circumstances:
    """What bears on a decision, without the draw and the analyst's word.

    >>> answered = Circumstances(disposition=Action.ALLOW, exploration_draw=0.5)
    >>> as_backtested(answered) == Circumstances()
    True
    """
    if circumstances.disposition is None and circumstances.exploration_draw is None:
        return circumstances
    return Circumstances(lists=circumstances.lists, sandbox=circumstances.sandbox)


def causes(compared: Compared) -> tuple[Cause, ...]:
    """Which parts call for the more severe of two actions in the one policy and not in the other.

    Of several each is a cause, for the refund would move only if all were as in the other policy.
    Where the same parts call for the action in both policies, the milder one spares this request by
    its allow list.
    """
    before, after = compared.before, compared.after
    severe, mild = (after, before) if after.action > before.action else (before, after)
    action = severe.action
    if severe.source is Source.LIST:
        return (Cause("list", "block"),)
    found = [
        Cause("limit" if rule.stage is Stage.LIMIT else "rule", rule.rule_id)
        for rule in severe.rules
        if rule.calls_for is action and _acts(rule) and rule.reason in severe.reasons
    ]
    if severe.source is Source.FALLBACK:
        found.append(Cause("fallback", action.value))
    elif severe.band is action and (
        severe.source is Source.MODEL or not compared.logged.circumstances.lists.allow
    ):  # an allow list silences the band, and then a rule decided
        found.append(Cause("band", action.value))
    new = tuple(cause for cause in found if not _calls(mild, cause, action))
    return new or (Cause("list", "allow"),)


def _acts(rule: RuleResult) -> bool:
    return rule.mode is Mode.LIVE


def _calls(decision: Decision, cause: Cause, action: Action) -> bool:
    """Whether the same part calls for the action, or a more severe one, in another decision."""
    if cause.kind == "fallback":
        return False
    if cause.kind == "band":
        return decision.band is not None and decision.band >= action
    return any(
        rule.rule_id == cause.id and _acts(rule) and rule.calls_for >= action
        for rule in decision.rules
    )


def facts_read(causes: Iterable[Cause], *policies: Policy) -> tuple[str, ...]:
    """The facts that these parts of the policies decide by, in order of their names."""
    names: set[str] = set()
    for cause in causes:
        if cause.kind == "band":
            names |= {"probability", "expected_loss_minor"}
        names.update(
            name
            for policy in policies
            for rule in policy.rules
            if cause.kind in ("rule", "limit") and rule.miss.rule_id == cause.id
            for name in rule.condition.reads
        )
    return tuple(sorted(names))
