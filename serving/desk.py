"""The desk of one store, live or sandbox: takes a report in, decides it, and answers only for what
the store has kept.

A decision reads history outside the write lock and is committed inside it. When the customer's
history moved in between, it is made again, the last time under the lock, so that of many refunds
sent at once each sees those before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from features.catalog import PLAN
from features.engine import Past
from features.events import ENTITIES, Event, Order, RefundRequest
from features.ledger import Fact, order_ledger
from features.money import DAY_MS, Rates
from rules.decision import Action
from rules.engine import Circumstances, ListHit, ListMatch
from rules.policy import Policy
from serving.case import Judged
from serving.clock import FARTHEST_AHEAD_SECONDS
from serving.errands import Scoring, Sender, Telling
from serving.idempotency import Answer, Claim, InFlightError, KeyReusedError
from serving.metrics import DecisionMetrics
from serving.models import Models
from serving.policies import Policies
from serving.reports import RefundReport, Report
from serving.scorer import exploration_draw, keys_of, score, shadow
from serving.store.lists import ListEntry
from serving.store.reservations import Reservation
from serving.store.store import Store
from serving.together import OPTIMISTIC_TRIES, MovedError, alone
from serving.watch import Watch

__all__ = [
    "OPTIMISTIC_TRIES", "Answer", "Desk", "InFlightError", "KeyReusedError", "MovedError", "Sender",
]  # fmt: skip

READS: Final = tuple(PLAN.reads)
_EVERY_ENTITY: Final = frozenset(ENTITIES)

SANDBOX_ACTIONS: Final[Mapping[str, Action]] = {
    "qa-force-refund-allow": Action.ALLOW,
    "qa-force-refund-prevent": Action.PREVENT,
    "qa-force-refund-manualreview": Action.MANUAL_REVIEW,
    "qa-force-refund-review": Action.REVIEW,
}
"""Local parts of ``customer.email`` that force an answer, in the sandbox only."""


@dataclass(frozen=True)
class Desk:
    """Everything that one store's decisions are made with."""

    store: Store
    policies: Policies
    models: Models
    rates: Rates
    secret: bytes
    deadline_ms: int
    is_sandbox: bool = False
    metrics: DecisionMetrics | None = None
    review_ms: int = DAY_MS
    """How long a person has for a review."""
    review_limit_minor: int | None = None
    """Up to how much somebody without an account approves alone; None: any amount."""

    def warm_up(self) -> None:
        """Go the way of a decision once, up to what is kept, before the first one is waiting."""
        request = RefundRequest(refund_id="-", customer_id="-", order_id="-", known_at=1,
                                amount_minor=0, currency=self.rates.base)  # fmt: skip
        self.judge(request, Watch(math.inf))

    # --- what is asked of it -------------------------------------------------------------------

    def record(
        self, report: Report, known_at: int, actor: str, claim: Claim | None = None
    ) -> Answer:
        """Keep what a backend reports, and answer when it is kept; see `Telling`."""
        return alone(Telling(self, report, lambda: known_at, actor, claim))

    def decide(
        self, report: RefundReport, now: Callable[[], int], sender: Sender,
        arrived: float | None = None,
    ) -> Answer:  # fmt: skip
        """Decide a refund request: the stored decision if it was decided before, else a new one.

        ``now`` gives the cutoff, once per attempt: a decision made again is made later. The
        deadline counts from ``arrived``, by the monotonic clock, so waiting counts too. Raises
        `KeyReusedError` for an idempotency key that came with other content before, and
        `InFlightError` for one whose first request is under way.
        """
        return alone(Scoring(self, report, now, sender, Watch(self.deadline_ms, arrived)))

    def no_earlier(self, known_at: int, than: int) -> int:
        """A time of arrival that comes no earlier than what is kept already.

        Another worker's clock may be ahead by what the machines' clocks differ, or have told the
        same millisecond. A time that is farther ahead than any clock can be is not followed.
        """
        is_ahead = known_at < than < known_at + FARTHEST_AHEAD_SECONDS * 1000
        return than if is_ahead and self.store.clock == "ingest" else known_at

    # --- deciding ------------------------------------------------------------------------------

    def judge(
        self, request: RefundRequest, watch: Watch,
        reserved: tuple[Reservation, ...] = (), brought: Iterable[Event] = (),
        disposition: Action | None = None,
    ) -> Judged:  # fmt: skip
        """Decide a request; ``brought`` is what its body says besides, such as its order.

        ``disposition`` is what an analyst answered to exactly this.
        """
        # Taken once: what is promoted or put in force meanwhile is for the next decision.
        models, policy = self.models.now, self.policies.now
        keys = keys_of(request)
        slices, entries, documents = self.store.grounds(request, keys, READS)
        circumstances = self._circumstances(request, keys, policy, entries)
        if disposition is not None:
            # What the sandbox forced was reviewed: from then on the analyst's answer counts there.
            circumstances = replace(circumstances, disposition=disposition, sandbox=None)
        ledger = _ledger(request, [*documents, *brought], reserved)
        watch("features")
        past = Past(slices.rows, slices.pseudonyms, slices.first_seen)
        verdict = score(
            request, past, models.champion, policy, self.rates, circumstances, watch, ledger
        )
        judged = Judged(
            slices, policy, circumstances, verdict, reserved=reserved,
            order_is_known=any(
                isinstance(told, Order) and told.known_at < request.known_at for told in documents
            ),
        )  # fmt: skip
        watch.pause()
        if (challenger := models.shadow) is None:
            return judged
        with watch.stopped():
            beside = shadow(verdict, challenger, policy, circumstances, watch)
        if beside.problem is not None:
            self.models.report(beside.version, beside.problem)
        return replace(judged, shadow=beside)

    def _circumstances(
        self, request: RefundRequest, keys: Mapping[str, str], policy: Policy,
        entries: Iterable[ListEntry],
    ) -> Circumstances:  # fmt: skip
        """What else bears on the decision, as of its cutoff."""
        return Circumstances(
            lists=ListMatch(
                block=tuple(ListHit(e.entity, e.reason) for e in entries if e.list == "block"),
                allow=tuple(ListHit(e.entity, e.reason) for e in entries if e.list == "allow"),
                entities=_EVERY_ENTITY & keys.keys(),
            ),
            sandbox=_forced(request.email) if self.is_sandbox else None,
            exploration_draw=exploration_draw(self.secret, request.refund_id, policy.hash),
        )


def _ledger(
    request: RefundRequest, events: Iterable[Event], reserved: Sequence[Reservation]
) -> Mapping[str, Fact] | None:
    """What the order's own documents say, and what is held of it.

    Whatever the policy in force reads: a later one is tried on what is kept of this decision.
    """
    if request.order_id is None:
        return None
    holds = [hold for one in reserved for hold in one.holds(request.known_at)]
    return order_ledger(request, events, holds)


def _forced(email: str | None) -> Action | None:
    return SANDBOX_ACTIONS.get(email.partition("@")[0]) if email else None
