"""One refund request as it was decided on, ready to be decided again under any policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rules.condition import Facts
from rules.decision import Action, Source

if TYPE_CHECKING:
    from rules.engine import Circumstances, Score


@dataclass(frozen=True, slots=True)
class Logged:
    """All that `rules.engine.decide` needs of one request, what it answered then, and the label.

    >>> from rules.engine import Circumstances
    >>> row = Logged("r1", "c1", 0, {"payable_minor": 1250.0}, None, Circumstances())
    >>> row.payable_minor, row.abuse
    (1250.0, None)
    """

    refund_id: str
    customer: str
    """Pseudonym or id of the customer: one cluster of the intervals."""
    decided_at: int
    """Epoch milliseconds; from a data folder, when the request was made."""
    facts: Facts
    """By name; ``payable_minor``, in minor units of the base currency, among them where known."""
    score: Score | None
    """The score as it was logged; None where the decision was degraded."""
    circumstances: Circumstances
    abuse: bool | None = None
    """The mature label, None where there is none."""
    policy_hash: str | None = None
    """The policy that decided; None from a data folder, where nothing was decided."""
    action: Action | None = None
    """What was answered."""
    source: Source | None = None
    propensity: float = 1.0
    """The probability with which the policy then took this action on this request."""
    explored: bool = False
    hits: tuple[str, ...] = ()
    """Ids of the rules, live and shadow, that hit then."""

    @property
    def payable_minor(self) -> float | None:
        """What would be paid, in minor units of the base currency; None where unknown."""
        value = self.facts.get("payable_minor")
        if isinstance(value, int | float) and value == value:
            return float(value)
        return None
