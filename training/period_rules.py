"""Which rules hit the refunds of a period, and how right they were, as decisions were logged.

What another policy would have hit is not asked here: that is `training.quality_report`. A rule is
told apart by its id, its mode and the action that it asks for: one that was changed stands twice.

**Overturned** are held refunds that the rule hit and an analyst approved. **Precision** is the
share of abuse among labelled hits, over all refunds that calibration looks at: those of the last
weeks have no label yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select

from features.tables import Tables
from rules.decision import Action, Mode
from serving.store.schema import reviews
from serving.store.store import Store
from training.bootstrap import Interval, known
from training.costs import REVIEWED
from training.period_labels import labels_of
from training.period_read import Dictionary, Mask, Refunds
from training.policy_figures import Share, share_of, wilson


@dataclass(frozen=True)
class RuleUse:
    """A rule or limit in a period: hits, what they are worth, and what became of them.

    ``called`` hits got the action that the rule asks for, none of a rule in the shadow. Of those
    held ``answered`` have an analyst's answer, and ``approved`` of these were approved.
    """

    rule_id: str
    mode: Mode
    action: Action
    hits: int
    before: int
    minor: float
    called: int
    answered: int
    approved: int
    labelled: int
    precision: Share

    @property
    def overturned(self) -> float:
        """The share of answered hits that were approved, NaN of none."""
        return self.approved / self.answered if self.answered else float("nan")

    @property
    def overturned_interval(self) -> Interval:
        """Its 95 % interval."""
        return wilson(self.overturned if self.answered else 0.0, self.answered)

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        plain = ("rule_id", "hits", "before", "minor", "called", "answered", "approved", "labelled")
        return {
            **{name: getattr(self, name) for name in plain},
            "mode": self.mode.value,
            "action": self.action.value,
            "overturned": known(self.overturned),
            "overturned_interval": self.overturned_interval.to_json(),
            "precision": known(self.precision.value),
            "precision_interval": self.precision.interval.to_json(),
        }


def answered(store: Store, since: int) -> Mapping[str, bool]:
    """Refunds that analysts answered since an instant (epoch ms): whether they approved them."""
    r = reviews.c
    wanted = select(r.refund_id, r.ending).where(
        r.closed_at >= since, r.ending.in_(("approved", "denied"))
    )
    with store.database.read() as connection:
        rows = connection.execute(wanted.order_by(r.closed_at, r.score_id)).all()
    return {refund_id: ending == "approved" for refund_id, ending in rows}


def rules_used(
    before: Refunds, now: Refunds, mature: Refunds, tables: Tables, answers: Mapping[str, bool],
    words: Dictionary, *, as_of: int, maturity_days: int,
) -> tuple[RuleUse, ...]:  # fmt: skip
    """The rules that hit in either period, the most frequent first.

    ``mature`` are refunds of long enough for labels of canonical ``tables``, as known at ``as_of``;
    ``answers`` is as `answered` gives it.
    """
    abuse, _ = labels_of(mature, tables, as_of, maturity_days)
    is_held = now.table["action"] == REVIEWED
    has_answer = is_held & np.array([one in answers for one in now.refund_id], np.bool_)
    is_approved = has_answer & np.array([answers.get(x, False) for x in now.refund_id], np.bool_)
    found = []
    for number, (rule_id, mode, action) in enumerate(words.rules.met):
        was, hit, ever = (_hit(of, number) for of in (before, now, mature))
        if not (was.any() or hit.any()):
            continue
        labelled = ever & ~np.isnan(abuse)
        asks = Action(action)
        is_live = mode == Mode.LIVE.value
        found.append(RuleUse(
            rule_id=rule_id,
            mode=Mode(mode),
            action=asks,
            hits=int(hit.sum()),
            before=int(was.sum()),
            minor=float(np.nansum(now.table["payable_minor"][hit])),
            called=int((hit & (now.table["action"] == asks.severity)).sum()) if is_live else 0,
            answered=int((hit & has_answer).sum()),
            approved=int((hit & is_approved).sum()),
            labelled=int(labelled.sum()),
            precision=share_of(abuse[labelled], mature.table["customer"][labelled]),
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda one: (-one.hits, -one.before, one.rule_id, one.mode)))


def _hit(of: Refunds, number: int) -> Mask:
    found = np.zeros(len(of), np.bool_)
    found[of.hits[of.hits[:, 1] == number, 0]] = True
    return found
