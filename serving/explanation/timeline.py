"""The customer's events around a decision: what is told of them, and which of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from serving.explanation.happenings import Happening, decided, happening
from serving.explanation.parts import Moment, Timeline
from serving.language import Language
from serving.store.around import Answered, answered, events_around, versions_of
from serving.store.decisions import Decision
from serving.store.holdings import in_parts
from serving.store.indexing import Name, StoredEvent
from serving.store.store import Store


def timeline_of(store: Store, decision: Decision, language: Language, most: int = 60) -> Timeline:
    """The customer's orders, refunds, returns, disputes, verdicts and decisions, the oldest first.

    What is about the decided refund and its order is always among them, up to ``most``; of the rest
    what is nearest to the decision, a third of it at most from after it where there is more before.
    Read through indexes, in statements that are bounded whatever the customer did.
    """
    record = decision.record
    order_id = record["keys"].get("order")
    told = _Told(decision, order_id, language)
    with store.database.read() as connection:
        around = events_around(
            store.database, connection, record["keys"], record["cutoff"], order_id,
            decision.refund_id, record["event_id"], most,
        )  # fmt: skip
        near = [*around.named, *around.before[:most], *around.after[:most]]
        refund_ids = {decision.refund_id} | {
            each for e in near if (each := e.payload.get("refund_id"))
        }
        versions: list[StoredEvent] = []
        decisions: list[Answered] = []
        for part in in_parts(sorted(refund_ids)):
            versions += versions_of(connection, part)
            decisions += answered(connection, part)
    told.meet([*near, *versions])
    # A first version that is not near is among those that are counted.
    every = {e.seq: e for e in (*near, *(e for e in versions if not told.is_first(e)))}
    moments = [*map(told.moment, every.values()), *told.decided(decisions)]
    timeline = _timeline(moments, record["cutoff"], most)
    return replace(
        timeline,
        left_out=timeline.left_out + around.unread_before + len(around.before[most:]),
        left_out_later=timeline.left_out_later + around.unread_after + len(around.after[most:]),
    )


@dataclass
class _Placed:
    """A moment and its place among those of one instant: the number of the event that it is.

    A decision stands behind the request that it is about; ``number`` says which comes first of
    several.
    """

    moment: Moment
    seq: int
    number: int = 0

    @property
    def key(self) -> tuple[int, int, int]:
        return self.moment.at, self.seq, self.number


@dataclass
class _Told:
    """Turns events into moments, as seen from a decision."""

    decision: Decision
    order_id: str | None
    language: Language
    _first: dict[Name, StoredEvent] = field(default_factory=dict)
    _seq: dict[str, int] = field(default_factory=dict)

    def is_own(self, payload: Mapping[str, Any]) -> bool:
        """Whether it is about the decided refund, or about its order alone."""
        refund_id = payload.get("refund_id")
        if refund_id is not None:
            return bool(refund_id == self.decision.refund_id)
        return self.order_id is not None and payload.get("order_id") == self.order_id

    def meet(self, found: Iterable[StoredEvent]) -> None:
        """Take in what says which versions of orders and refunds came first."""
        for event in sorted(found, key=lambda each: (each.known_at, each.seq)):
            self._seq[event.event_id] = event.seq
            if (name := event.own_name()) is not None:
                self._first.setdefault(name, event)

    def is_first(self, event: StoredEvent) -> bool:
        """Whether it is no later version of an order or a refund."""
        name = event.own_name()
        return name is None or self._first[name].seq == event.seq

    def moment(self, event: StoredEvent) -> _Placed:
        """What an event says, at the instant it became known."""
        payload = event.payload
        refund = self._first.get(Name("refund_request", payload.get("refund_id", "")))
        told = happening(
            event.event_type, payload, self.language,
            is_first=self.is_first(event),
            currency=refund.payload["currency"] if refund else None,
        )  # fmt: skip
        return self._placed(told, event.known_at, event.seq, payload)

    def decided(self, found: Sequence[Answered]) -> Iterator[_Placed]:
        """What was decided on refunds; ``found`` begins with the last decision."""
        own, every = self.decision, list(reversed(found))
        if all(each.score_id != own.score_id for each in found):  # it is older than so many
            data = own.response["data"]
            event_id = own.record["event_id"]
            every.insert(0, Answered(own.score_id, own.refund_id, own.decided_at, event_id, data))
        behind: dict[str, tuple[int, int]] = {}
        for number, each in enumerate(every, 1):
            told = decided(each.data, self.language, is_first=each.refund_id not in behind)
            # No earlier than the last one of its instant: a request may be sent again.
            place = each.decided_at, self._seq.get(each.event_id, sys.maxsize)
            place = behind[each.refund_id] = max(place, behind.get(each.refund_id, place))
            yield self._placed(told, place[0], place[1], {"refund_id": each.refund_id}, number)

    def _placed(
        self, told: Happening, at: int, seq: int, payload: Mapping[str, Any], number: int = 0
    ) -> _Placed:
        is_own = self.is_own(payload)
        moment = Moment(
            at=at,
            lane=told.lane,
            title=told.title,
            detail="; ".join(told.details),
            amount_minor=told.amount_minor,
            currency=told.currency,
            refund_id=payload.get("refund_id"),
            order_id=payload.get("order_id"),
            is_own=is_own,
            is_later=is_later(at, self.decision.record["cutoff"], is_own=is_own),
            tone=told.tone,
        )
        return _Placed(moment, seq, number)


def is_later(at: int, cutoff: int, *, is_own: bool) -> bool:
    """Whether a decision with this cutoff could not know of it.

    A decision sees what was known before its cutoff, and what came with the request itself.

    >>> is_later(10, 10, is_own=True), is_later(10, 10, is_own=False), is_later(9, 10, is_own=False)
    (False, True, False)
    """
    return at > cutoff or (at == cutoff and not is_own)


# --- which of them -----------------------------------------------------------------------------


def _timeline(found: Sequence[_Placed], cutoff: int, most: int) -> Timeline:
    """Own moments first, then what is nearest to the decision; the rest is counted."""
    own = [each for each in found if each.moment.is_own]
    own.sort(key=lambda each: (abs(each.moment.at - cutoff), each.key))
    others = sorted((each for each in found if not each.moment.is_own), key=lambda each: each.key)
    before = [each for each in others if not each.moment.is_later]
    after = [each for each in others if each.moment.is_later]
    room = max(most - len(own), 0)
    later = min(len(after), max(room // 3, room - len(before)))
    earliest = max(len(before) - (room - later), 0)
    shown = sorted([*own[:most], *before[earliest:], *after[:later]], key=lambda each: each.key)
    left_out = [each.moment for each in (*own[most:], *before[:earliest], *after[later:])]
    count_later = sum(moment.is_later for moment in left_out)
    return Timeline(tuple(each.moment for each in shown), len(left_out) - count_later, count_later)
