"""Logs of decisions out of thin air, for the report on a period: every figure is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.catalog import MODEL_FEATURES
from features.events import Label, RefundOutcome, RefundRequest
from features.money import DAY_MS
from serving.store.decisions import Decision, Numbers
from serving.store.refunds import Decided
from serving.store.store import Store, Transaction

NOW = 1_780_000_000_000
NAMES = tuple(feature.name for feature in MODEL_FEATURES)
PAYABLE = NAMES.index("payable_minor")
MOVING = NAMES.index("refund_count_by_customer_30d")
GOALS: dict[str, Any] = {"ALLOW": "APPROVED", "PREVENT": "DENIED", "MANUAL_REVIEW": "NEEDS_REVIEW"}


@dataclass
class Log:
    """A store to write decisions to, from one seed on."""

    store: Store
    seed: int = 0
    sent: int = 0
    draw: np.random.Generator = field(init=False)
    _open: Transaction | None = None

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(self.seed)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A transaction; within one it is the same."""
        if self._open is not None:
            yield self._open
            return
        with self.store.write() as self._open:
            yield self._open
        self._open = None

    def decide(
        self, n: int, since: int, until: int, *, shift: float = 0.0, model: str | None = "1",
        catalog: str = "c1", names: tuple[str, ...] = NAMES, reasons: Iterable[str] = (),
        channels: tuple[str, ...] = ("WEB", "APP"), customers: int = 400,
        hits: Iterable[str] = (),
    ) -> list[str]:  # fmt: skip
        """Decide so many refunds, evenly over a time; the refunds' ids.

        ``shift`` is added to a feature; without a ``model`` nothing is scored.
        """
        ids = []
        for i in range(n):
            self.sent += 1
            at = since + (until - since) * i // n
            refund_id = f"r{self.sent}"
            p = float(self.draw.beta(1, 8))
            held = "PREVENT" if p > 0.45 else "MANUAL_REVIEW" if p > 0.15 else "ALLOW"
            explored = held != "ALLOW" and self.draw.random() < 0.2
            scored = model is not None
            self.write(
                refund_id, f"c{self.draw.integers(customers)}", at,
                action=("ALLOW" if explored else held) if scored else "MANUAL_REVIEW",
                source="MODEL" if scored else "FALLBACK", probability=p if scored else None,
                explored=bool(explored and scored), model=model, catalog=catalog, names=names,
                channel=channels[i % len(channels)], rules=[*reasons][: int(held != "ALLOW") * 9],
                told=["ACCOUNT_AGE", "NOT_KNOWN"][: int(self.draw.integers(3))], shift=shift,
                hits=hits,
            )  # fmt: skip
            ids.append(refund_id)
        return ids

    def write(
        self, refund_id: str, customer: str, at: int, *, action: str, source: str = "MODEL",
        probability: float | None = 0.5, explored: bool = False, model: str | None = "1",
        catalog: str = "c1", names: tuple[str, ...] = NAMES, channel: str = "WEB",
        rules: Iterable[str] = (), told: Iterable[str] = (), shift: float = 0.0,
        list_reasons: Iterable[str] = (), hits: Iterable[str] = (),
    ) -> None:  # fmt: skip
        """Keep one decision, and what it makes of the refund.

        ``hits`` are rules that ask for a review; those named with a + are in the shadow.
        """
        row = self.draw.exponential(3.0, len(names))
        row[self.draw.random(len(names)) < 0.1] = np.nan
        if "payable_minor" in names:
            row[names.index("payable_minor")] = float(self.draw.integers(100, 9_000))
        if NAMES[MOVING] in names:
            row[names.index(NAMES[MOVING])] += shift
        weights = self.draw.normal(0, 0.2, len(names) + 1)
        score_id = f"{at:012d}{self.draw.integers(10**12):012d}"
        record = {
            "refund_id": refund_id,
            "keys": {"customer": self.store.identifiers.mac("customer", customer)},
            "decision": {
                "action": action, "source": source, "explored": explored,
                "propensity": 0.2 if explored else 0.8 if action != "ALLOW" else 1.0,
                "degraded": model is None, "policy_version": "p1", "reasons": [*rules],
                "list_reasons": [*list_reasons],
                "hits": [{"rule_id": one.lstrip("+"), "action": "MANUAL_REVIEW",
                          "mode": "shadow" if one.startswith("+") else "live"} for one in hits],
            },
            "probability": probability,
            "reasons": [{"code": code} for code in told],
            "facts": {"channel": channel},
            "features": Numbers(names, row),
            "contributions": None if model is None else Numbers((*names, "expected"), weights),
            "model_version": model,
            "catalog_hash": catalog,
        }  # fmt: skip
        asked = RefundRequest(refund_id=refund_id, customer_id=customer, known_at=at,
                              amount_minor=1_000, currency="GBP")  # fmt: skip
        decided = Decided(refund_id, GOALS[action], score_id, at, None, "GBP", lambda held: held)
        with self.writing() as tx:
            tx.append([asked], decided)
            tx.save_decision(Decision(score_id, refund_id, "h", at, record, {}))

    def paid(self, refund_id: str, at: int) -> None:
        """A refund's money has moved."""
        with self.writing() as tx:
            tx.append([RefundOutcome(refund_id=refund_id, status="COMPLETED", known_at=at)])

    def said(self, at: int, word: str, source: str | None = "ANALYST", **of: str) -> None:
        """Somebody has a word on a refund or on a customer."""
        with self.writing() as tx:
            tx.append([Label(known_at=at, label=word, source=source, **of)])

    def look_into(self, ids: Iterable[str], days: float = 2) -> None:
        """Pay what was allowed, and have analysts look into half of what was held."""
        last = {one.refund_id: one for one in self.store.decisions()}
        for refund_id in ids:
            one = last[refund_id]
            if one.record["decision"]["action"] == "ALLOW":
                self.paid(refund_id, one.decided_at + 1)
            is_abuse = self.draw.random() < (one.record["probability"] or 0.1)
            if self.draw.random() < 0.5:
                word = "REFUND_ABUSE" if is_abuse else "NOT_REFUND_ABUSE"
                self.said(one.decided_at + int(days * DAY_MS), word, refund_id=refund_id)
