"""Two policies over the same logged facts: what would change, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rules.condition import Facts
from rules.decision import Action, Decision
from rules.document import Costs
from rules.engine import ListMatch, Score, decide
from rules.policy import Policy


@dataclass(frozen=True, slots=True)
class LoggedFacts:
    """One request as it was decided on, and what became known of it since.

    `facts` holds `payable_minor` in the base currency where it was known. `abuse` is the mature
    label, None where there is none.
    """

    refund_id: str
    facts: Facts
    score: Score | None
    lists: ListMatch = field(default_factory=ListMatch)
    rate_limited: bool = False
    abuse: bool | None = None


@dataclass(slots=True)
class Tally:
    """A number of refunds and the sum of what would be paid, in minor units.

    Refunds whose amount in the base currency is unknown are counted and add nothing.
    """

    count: int = 0
    payable_minor: float = 0.0

    def add(self, payable_minor: float) -> None:
        """Count one more refund."""
        self.count += 1
        self.payable_minor += payable_minor


@dataclass(slots=True)
class Ledger:
    """What one policy would have done: all refunds by action, the labelled ones by right or wrong.

    `cost_minor` adds up what is known: amount and fee of each paid abuse, the stated multiple of
    each prevented honest refund, and one review for each held refund.
    """

    version: str
    paid: Tally = field(default_factory=Tally)
    held: Tally = field(default_factory=Tally)
    prevented: Tally = field(default_factory=Tally)
    abuse_paid: Tally = field(default_factory=Tally)
    abuse_prevented: Tally = field(default_factory=Tally)
    honest_prevented: Tally = field(default_factory=Tally)
    cost_minor: float = 0.0

    def add(self, action: Action, payable_minor: float, abuse: bool | None, costs: Costs) -> None:
        """Book one decision."""
        if action is Action.ALLOW:
            self.paid.add(payable_minor)
            if abuse:
                self.abuse_paid.add(payable_minor)
                self.cost_minor += payable_minor + costs.fee_minor
        elif action is Action.PREVENT:
            self.prevented.add(payable_minor)
            if abuse:
                self.abuse_prevented.add(payable_minor)
            elif abuse is not None:
                self.honest_prevented.add(payable_minor)
                self.cost_minor += costs.prevented_honest_multiple * payable_minor
        else:
            self.held.add(payable_minor)
            self.cost_minor += costs.review_minor


@dataclass(frozen=True, slots=True)
class Change:
    """A refund that the two policies decide differently."""

    refund_id: str
    before: Action
    after: Action
    reasons_before: tuple[str, ...]
    reasons_after: tuple[str, ...]
    payable_minor: float | None
    abuse: bool | None


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """`shifts[a][b]` counts the refunds that policy a answers with a and policy b with b."""

    requests: int
    labelled: int
    payable_unknown: int
    shifts: dict[Action, dict[Action, int]]
    before: Ledger
    after: Ledger
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        report = asdict(self)
        report["shifts"] = {
            before.value: {after.value: count for after, count in row.items()}
            for before, row in self.shifts.items()
        }
        report["changes"] = [
            {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}
            for row in report["changes"]
        ]
        return report


def backtest(policy_a: Policy, policy_b: Policy, logged: Iterable[LoggedFacts]) -> BacktestReport:
    """Decide every logged request under both policies and compare; `policy_a` is what runs now.

    Both are judged by the costs of `policy_a`, and decide on the expected loss as it was logged: a
    candidate does not grade itself. Nothing is explored, as the draw depends on the policy, and
    analysts' dispositions are left out: they answered the decision that was made.
    """
    actions = (Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT)
    shifts = {before: dict.fromkeys(actions, 0) for before in actions}
    ledgers = Ledger(policy_a.version), Ledger(policy_b.version)
    changes = []
    requests = labelled = payable_unknown = 0
    for row in logged:
        before, after = _decide(row, policy_a), _decide(row, policy_b)
        payable = _payable_minor(row.facts)
        for ledger, decision in zip(ledgers, (before, after), strict=True):
            ledger.add(decision.action, payable or 0.0, row.abuse, policy_a.costs)
        requests += 1
        labelled += row.abuse is not None
        payable_unknown += payable is None
        shifts[before.action][after.action] += 1
        if before.action is not after.action:
            changes.append(
                Change(
                    refund_id=row.refund_id,
                    before=before.action,
                    after=after.action,
                    reasons_before=before.reasons,
                    reasons_after=after.reasons,
                    payable_minor=payable,
                    abuse=row.abuse,
                )
            )
    return BacktestReport(
        requests=requests,
        labelled=labelled,
        payable_unknown=payable_unknown,
        shifts=shifts,
        before=ledgers[0],
        after=ledgers[1],
        changes=tuple(changes),
    )


def _decide(row: LoggedFacts, policy: Policy) -> Decision:
    return decide(row.facts, row.score, policy, row.lists, rate_limited=row.rate_limited)


def _payable_minor(facts: Facts) -> float | None:
    value = facts.get("payable_minor")
    if isinstance(value, int | float) and value == value:
        return float(value)
    return None
