"""Orders against a ledger kept by hand: nothing is paid twice, and nobody refused what fits."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from features.money import Rates
from rules.policy import Policy
from serving import contract
from serving.desk import Answer, Desk
from serving.facts import FACTS
from serving.models import Models
from serving.policies import Policies
from serving.recompute import recompute
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.documents import BALANCE, UNHELD, document, rule
from tests.serving.test_desk import BODY, ME, SECRET, Clock
from tests.serving.test_reservations import asked, moved, order, outcome

CAPTURED: Final = {"o-1": 9000, "o-2": 5000}
WAITS_FROM: Final = 5000
"""From this amount on a person decides."""

PAID_BEFORE: Final = rule(
    id="already_refunded", stage="hard", when="refund_completed_count_by_refund_365d > 0.0",
    action="PREVENT", reason="ALREADY_REFUNDED", description="It was paid back already",
    examples={"hit": [{"refund_completed_count_by_refund_365d": 1}],
              "miss": [{"refund_completed_count_by_refund_365d": 0}]},
)  # fmt: skip
POLICY: Final = Policy.from_yaml(
    document("1", BALANCE, UNHELD, PAID_BEFORE, rule(WAITS_FROM), orders_complete=True), facts=FACTS
)

ENDED: Final = ("PREVENT", "DECLINED", "CANCELED")

Place = tuple[str, str]
"""A refund and an order that it was asked for on."""


class ByHand:
    """Who may still be paid what, as anyone would write it down."""

    def __init__(self) -> None:
        self.promised: dict[Place, int] = defaultdict(int)
        self.waiting: dict[Place, int] = defaultdict(int)
        self.moved: dict[Place, int] = defaultdict(int)
        self.reported: dict[Place, list[int]] = defaultdict(list)
        self.paid: dict[str, int] = {}
        self.paid_of: dict[str, str] = {}
        self.was_paid: set[str] = set()
        self.stands: dict[str, str] = {}
        self.asked: set[Place] = set()

    def committed(self, order_id: str, besides: str = "", *, places: bool = False) -> int:
        """What was paid back of an order, and what was allowed besides and is not settled.

        An outcome does not say of which order it is, so it counts for each that the refund was
        asked for on; with ``places`` only for the one that was paid.
        """
        paid = sum(
            max(self.moved[place], self.paid.get(place[0], 0))
            for place in sorted(self.asked)
            if place[1] == order_id
            and (not places or self.paid_of.get(place[0]) in (None, order_id))
        )
        return paid + sum(
            max(0, minor - self.moved[place])
            for place, minor in list(self.promised.items())
            if place[1] == order_id and place[0] not in (besides, *self.paid)
        )

    def answer(self, refund: str, order_id: str, amount: int) -> str:
        """What a decision on this request has to be."""
        left = CAPTURED[order_id] - self.committed(order_id, besides=refund)
        left -= sum(told[-1] for place, told in self.reported.items() if place[1] == order_id)
        if refund in self.was_paid or amount > left:
            return "PREVENT"
        left -= sum(
            max(0, minor - max(self.promised[place], self.moved[place]))
            for place, minor in list(self.waiting.items())
            if place[1] == order_id and place[0] not in (refund, *self.paid)
        )
        return "MANUAL_REVIEW" if amount > left or amount >= WAITS_FROM else "ALLOW"

    def stands_by(self, place: Place, amount: int, action: str) -> bool:
        """Whether an answer that was given may be given again."""
        stands = self.stands[place[0]]
        if action == "PREVENT":
            return True
        if stands == "COMPLETED":  # what was paid less than promised is anybody's again
            return action != "ALLOW" or amount <= self.promised[place]
        most = max(self.promised[place], self.waiting[place] if action != "ALLOW" else 0)
        return stands not in ENDED and amount <= most

    def decide(self, place: Place, amount: int, action: str) -> None:
        """Take in a new decision."""
        refund = place[0]
        stands = self.stands.get(refund)
        if stands == "COMPLETED":
            return
        if action == "ALLOW":
            self.promised[place] = max(self.promised[place], amount)
        self.waiting[place] = amount if action == "MANUAL_REVIEW" else 0
        if stands not in ("ALLOW", "FAILED"):
            self.stands[refund] = action
            if action == "PREVENT":
                self.settle(refund, 0)

    def settle(self, refund: str, most: int) -> None:
        """No more than this is to be paid of a refund."""
        for amounts in (self.promised, self.waiting):
            for place in [place for place in amounts if place[0] == refund]:
                amounts[place] = min(amounts[place], most)

    def tell(self, refund: str, status: str, amount: int, order_id: str) -> None:
        """Take in an outcome."""
        self.stands[refund] = status
        self.paid.pop(refund, None)
        if status == "COMPLETED":
            self.paid[refund], self.paid_of[refund] = amount, order_id
            self.was_paid.add(refund)
        if status != "FAILED":
            self.settle(refund, amount)


ORDERS: Final = st.sampled_from(["o-1", "o-1", "o-1", "o-2"])
SHARES: Final = st.sampled_from([1, 2])
"""Of what was promised the whole, or half."""

VALUES: Final[dict[str, st.SearchStrategy[int]]] = {
    "ask": st.sampled_from([3000, 4800, 6000, 9001]),
    **dict.fromkeys(["COMPLETED", "DECLINED", "FAILED", "CANCELED", "moves"], SHARES),
    "reported": st.sampled_from([500, 1500]),
}
WHAT: Final = ["ask"] * 9 + ["COMPLETED"] * 2 + [what for what in VALUES if what != "ask"]


def step(what: str) -> st.SearchStrategy[tuple[str, str, str, int]]:
    refunds = ["q-1"] if what == "reported" else ["r-1", "r-2"]
    return st.tuples(st.just(what), st.sampled_from(refunds), ORDERS, VALUES[what])


STEPS: Final = st.lists(st.sampled_from(WHAT).flatmap(step), min_size=6, max_size=20)


class Shop:
    """A desk, and orders of their own for each play: ids of a play start with its number."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.now, self.plays = desk, Clock(), 0

    def open(self) -> None:
        """The orders of a new play."""
        self.plays += 1
        for order_id, captured in CAPTURED.items():
            order(self.desk, self.now, f"{self.plays}-{order_id}", captured)

    def ask(self, refund: str, order_id: str, amount: int) -> Answer:
        names = (f"{self.plays}-{name}" for name in (f"of {refund}", order_id))
        one = asked(f"{self.plays}-{refund}", amount, *names)
        return self.desk.decide(one, self.now, ME)

    def report(self, refund: str, order_id: str, amount: int) -> None:
        body = {"customer": BODY["customer"], "order": {"orderId": f"{self.plays}-{order_id}"},
                "refund": {**BODY["refund"], "refundId": f"{self.plays}-{refund}",
                           "amount": amount}}  # fmt: skip
        told = contract.parse_refund(orjson.dumps(body), scored=False)
        self.desk.record(told, self.now(), "key:key_1")

    def move(self, refund: str, order_id: str, amount: int) -> None:
        names = f"{self.plays}-{refund}", amount, f"{self.plays}-{order_id}"
        moved(self.desk, self.now, *names)

    def tell(self, refund: str, status: str, amount: int | None) -> None:
        told = outcome(f"{self.plays}-{refund}", status, amount)
        self.desk.record(told, self.now(), "key:key_1")


def play(shop: Shop, steps: list[tuple[str, str, str, int]]) -> None:
    """Send the steps to a desk, and hold each of its answers to a ledger kept by hand."""
    shop.open()
    ledger, answers = ByHand(), dict[tuple[str, str, int], str]()
    for what, refund, order_id, value in steps:
        place = (refund, order_id)
        if what == "ask":
            before = answers.get((*place, value))
            stands = before is not None and ledger.stands_by(place, value, before)
            answer = shop.ask(refund, order_id, value)
            action = answer.body["data"]["action"]
            assert answer.replayed == stands, "an answer is given again as long as it stands"
            assert action == (before if stands else ledger.answer(refund, order_id, value))
            ledger.asked.add(place)
            if not stands:
                ledger.decide(place, value, action)
            answers[*place, value] = action
        elif what == "reported":
            shop.report(refund, order_id, value)
            if value not in ledger.reported[place]:  # else it is the version that is there already
                ledger.reported[place].append(value)
        elif what == "moves":
            amount = max(0, ledger.promised[place] - ledger.moved[place]) // value
            if amount and refund not in ledger.paid:
                shop.move(refund, order_id, amount)
                ledger.moved[place] += amount
        else:
            amount = ledger.promised[place] // value if what == "COMPLETED" else 0
            if amount or what != "COMPLETED":
                shop.tell(refund, what, amount or None)
                ledger.tell(refund, what, amount, order_id)
        for one, captured in CAPTURED.items():
            assert ledger.committed(one, places=True) <= captured, "more than there is"


def test_no_more_is_allowed_than_was_captured_and_nobody_is_refused_what_fits(
    store_url: str,
) -> None:
    store = Store.open(store_url, SECRET)
    with store.write() as tx:
        tx.add_policy(version=POLICY.version, hash=POLICY.hash, text=POLICY.text, author="ann",
                      note=None, at=1)  # fmt: skip
    shop = Shop(Desk(store, Policies(POLICY), Models(fixed()), Rates("GBP"), SECRET, 60_000))

    @given(STEPS)
    @settings(max_examples=40)
    def each(steps: list[tuple[str, str, str, int]]) -> None:
        play(shop, steps)

    each()
    again = recompute(store)
    assert again.decisions == again.whole > 100
    store.close()
