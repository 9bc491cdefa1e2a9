"""What a stored decision rested on, put together again, so that it can be made with something else.

`Scene.decide` makes it at its own cutoff, with another amount, other circumstances, another policy
or facts that were not known, `Scene.decide_had` with events just before it. `Scene.decide_after`
makes it a moment later, when the request itself and all that came with it are history. Events that
are only supposed enter the slices and the order's documents exactly as the store would put them
there. All go through `serving.scorer`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, Literal

from features.attribution import CODES, code_of
from features.engine import Past
from features.events import (
    COLUMN_OF,
    ENTITIES,
    Event,
    RefundOutcome,
    RefundRequest,
    derive_event_id,
)
from features.ledger import LEDGER_FACTS, Fact, order_ledger
from features.money import DAY_MS, Rates
from features.packed import LAYOUT
from rules.engine import Circumstances, Score, decide
from rules.policy import Policy, PolicyError
from serving.desk import READS
from serving.explanation.others import Others, settled
from serving.facts import BESIDE
from serving.language import Language
from serving.logged import circumstances_of
from serving.policies import AlteredPolicyError, loaded
from serving.scorer import Champion, Verdict, feature_row, judge, score
from serving.store.belonging import belonging
from serving.store.decisions import Decision
from serving.store.history import Slices
from serving.store.indexing import SLICE_OF, KeyRow, Name, StoredEvent, rows_of
from serving.store.reservations import Reservation
from serving.store.statements import MOST_ROWS
from serving.store.store import Store

MOST_TOLD: Final = 100
"""So many events of each key and type are looked at on either side of the decision."""

_TOLD: Final = (
    ("order", "order"), ("order", "order_update"), ("order", "return"),
    ("order", "dispute"), ("order", "refund_request"), ("order", "refund_outcome"),
    ("customer", "refund_request"), ("customer", "refund_outcome"), ("customer", "label"),
    ("customer", "dispute"), ("payment_method", "dispute"),
)  # fmt: skip
_PAIR_OF: Final = {number: pair for pair, number in SLICE_OF.items()}
_READ: Final = frozenset(READS)
_KNOWN: Final = attrgetter("known_at", "seq")
_IN_SLICE: Final = attrgetter("known_at", "own_known_at", "event_id")


class NoSceneError(Exception):
    """Something that the decision rested on is not in the store, or cannot be read any more."""

    def __init__(self, missing: Literal["request", "policy"]) -> None:
        super().__init__(f"the decision's {missing} cannot be read from the store")
        self.missing = missing

    def told(self, language: Language) -> str:
        """Why nothing can be computed, for an analyst."""
        if self.missing == "request":
            return language.say(
                "The request is not in the store any more, so nothing else can be computed."
            )
        return language.say(
            "The policy that decided cannot be read any more, so nothing else can be computed."
        )


@dataclass(frozen=True)
class Scene:
    """A decision with all that it is made of; persons stand under pseudonyms.

    ``then`` are its slices of history as of its cutoff, ``since`` those of a moment after. ``told``
    are the events about its refund, its order and its customer, before and after it, in the order
    in which they became known; ``refused`` names those of the other refunds that were prevented.
    """

    decision: Decision
    request: RefundRequest
    policy: Policy
    champion: Champion | None
    rates: Rates
    circumstances: Circumstances
    then: Slices
    since: Slices
    documents: Sequence[Event]
    reserved: Sequence[Reservation]
    refused: Collection[str]
    told: Sequence[StoredEvent]

    # --- what there is -----------------------------------------------------------------------

    @property
    def record(self) -> Mapping[str, Any]:
        """The record of the decision."""
        return self.decision.record

    @property
    def cutoff(self) -> int:
        """When it was decided (epoch ms)."""
        return self.request.known_at

    @property
    def told_before(self) -> int:
        """When an event is known that is supposed to have come before the request."""
        return self.cutoff - 1

    @property
    def told_at(self) -> int:
        """When a supposed event is known: right after all that came with the request."""
        return self.cutoff + 1

    def before(self, event_type: str, **said: Any) -> list[StoredEvent]:
        """The events of a type that were known at the cutoff and say this, the oldest first."""
        return [e for e in self.told if e.known_at < self.cutoff and _says(e, event_type, said)]

    def came(self, event_type: str, **said: Any) -> StoredEvent | None:
        """The first event of a type that became known after the decision and says this."""
        return next(
            (e for e in self.told if e.known_at > self.cutoff and _says(e, event_type, said)), None
        )

    @cached_property
    def first(self) -> Mapping[Name, StoredEvent]:
        """The first versions of the orders and refunds among what is told."""
        found: dict[Name, StoredEvent] = {}
        for event in self.told:
            name = event.own_name()
            if name and (name not in found or event.is_before(found[name])):
                found[name] = event
        return found

    # --- deciding ----------------------------------------------------------------------------

    def decide(
        self, *, amount_minor: int | None = None, circumstances: Circumstances | None = None,
        policy: Policy | None = None, facts: Mapping[str, Fact] | None = None,
    ) -> Verdict:  # fmt: skip
        """Make the decision again, as of its own cutoff, with what is given in place of its own.

        ``amount_minor`` is the whole amount of the refund; ``facts`` are of `serving.facts.FACTS`.
        """
        request = self.request
        if amount_minor is not None:
            request = request.model_copy(update={"amount_minor": amount_minor})
        return self._verdict(
            request, self.then.rows, self.then, self._ledger, facts or {},
            circumstances or self.circumstances, policy or self.policy,
        )  # fmt: skip

    def decide_had(self, *supposed: Event) -> Verdict:
        """Make the decision again, as of its own cutoff, had these events been known before it.

        They are known at `told_before`; none is an order or a refund request, or names a person,
        who would have been met by it.
        """
        return self._verdict(
            self.request, self._rows_with(supposed, self.then, self.cutoff), self.then,
            self._ledger_with(self.request, supposed), {}, self.circumstances, self.policy,
        )  # fmt: skip

    def decide_after(self, *supposed: Event, days: float = 0) -> Verdict:
        """Make the decision again when these events are known too, so many days later.

        They are known from `told_at` on, and before the decision is made again; none is an order or
        a refund request. What else became known after the decision is left out.
        """
        request = self.request.model_copy(
            update={"known_at": self.told_at + 1 + round(days * DAY_MS)}
        )
        ledger = self._ledger_with(request, supposed) if supposed else self._ledger
        return self._verdict(
            request, self._rows_with(supposed, self.since, request.known_at), self.since, ledger,
            {}, self.circumstances, self.policy,
        )  # fmt: skip

    def _verdict(
        self, request: RefundRequest, rows: Mapping[tuple[str, str], bytes], slices: Slices,
        ledger: Mapping[str, Fact] | None, facts: Mapping[str, Fact],
        circumstances: Circumstances, policy: Policy,
    ) -> Verdict:  # fmt: skip
        past = Past(rows, slices.pseudonyms, slices.first_seen)
        champion, rates = self.champion, self.rates
        if facts:
            row = {**feature_row(request, past, rates), **_numbers(facts)}
            words = {name: value for name, value in facts.items() if name in BESIDE}
            verdict = judge(request, row, champion, policy, circumstances,
                            ledger={**(ledger or {}), **words})  # fmt: skip
        else:
            verdict = score(request, past, champion, policy, rates, circumstances, ledger=ledger)
        return verdict if self.has_model else self._with_its_score(verdict, policy, circumstances)

    @property
    def has_model(self) -> bool:
        """Whether there is a model to ask; if not, the score of the record stands in."""
        return self.champion is not None

    def _with_its_score(
        self, verdict: Verdict, policy: Policy, circumstances: Circumstances
    ) -> Verdict:
        """A decision by the score that was, where there was one and its model is there no more."""
        probability = self.record["probability"]
        if probability is None:
            return verdict
        payable_minor = verdict.row["payable_minor"]
        is_known = not math.isnan(payable_minor)
        loss = policy.costs.expected_loss_minor(probability, payable_minor) if is_known else None
        held = Score(probability, loss)
        made = decide(verdict.facts, held, policy, circumstances)
        return replace(verdict, decision=made, score=held, problem=None)

    # --- with supposed events ----------------------------------------------------------------

    def _rows_with(
        self, supposed: Iterable[Event], slices: Slices, cutoff: int
    ) -> Mapping[tuple[str, str], bytes]:
        """These slices, as the store would give them at the cutoff with these events in it."""
        added: dict[tuple[str, str], list[KeyRow]] = {}
        stored = [*map(_stored, supposed)]
        each = {event.event_id: event for event in reversed(stored)}  # of one id the first counts
        for event in each.values():
            for row in rows_of(event, self.first):
                pair = _PAIR_OF[row.slice]
                is_held = slices.pseudonyms.get(pair[0]) == row.key_value
                if pair in _READ and is_held and row.known_at < cutoff:
                    added.setdefault(pair, []).append(row)
        rows = dict(slices.rows)
        for pair, new in added.items():
            joined = b"".join(row.packed for row in sorted(new, key=_IN_SLICE))
            most = MOST_ROWS * LAYOUT[pair[1]].itemsize
            rows[pair] = (rows.get(pair, b"") + joined)[-most:]
        return rows

    @cached_property
    def _ledger(self) -> Mapping[str, Fact] | None:
        """What the order's documents said: as it is kept, where it is."""
        if self.request.order_id is None:
            return None
        kept = self.record.get("facts")
        if kept is None:
            return self._ledger_of(self.request, ())
        return {name: _as_kept(kept.get(name)) for name in LEDGER_FACTS}

    def _ledger_with(
        self, request: RefundRequest, supposed: Sequence[Event]
    ) -> Mapping[str, Fact] | None:
        """What was kept of the order's ledger, with what the supposed events change of it."""
        if self._ledger is None:
            return None
        before, after = self._ledger_of(request, ()), self._ledger_of(request, supposed)
        changed = {name: after[name] for name in after if after[name] != before[name]}
        return {**self._ledger, **changed}

    def _ledger_of(self, request: RefundRequest, supposed: Sequence[Event]) -> Mapping[str, Fact]:
        outcomes = {e.refund_id: e for e in supposed if isinstance(e, RefundOutcome)}
        held = (settled(one, outcomes.get(one.refund_id)) for one in self.reserved)
        holds = [hold for one in held for hold in one.holds(request.known_at)]
        return order_ledger(request, [*self.documents, *supposed], holds)


def scene_of(store: Store, decision: Decision, champion: Champion | None, rates: Rates) -> Scene:
    """The scene of a stored decision, from its record and from what the store knows of that time.

    ``champion`` is the model to ask: the one that decided, or another. Raises `NoSceneError`.
    """
    record = decision.record
    kept = store.policy_by_hash(record["decision"]["policy_hash"])
    try:
        policy = None if kept is None else loaded(kept)
    except (PolicyError, AlteredPolicyError):
        policy = None
    if policy is None:
        raise NoSceneError("policy")
    keys, cutoff = record["keys"], record["cutoff"]
    history, database = store.history, store.database
    of_refund = store.refund_events(decision.refund_id)
    asked = next((e for e in of_refund if e.event_id == record["event_id"]), None)
    if asked is None:
        raise NoSceneError("request")
    request = _request(asked, keys, cutoff)
    with database.read() as connection:
        of_keys = belonging(database, connection, keys, _TOLD, cutoff + 1, MOST_TOLD)
        then = history.read(connection, {}, cutoff, READS, keys)
        since = history.read(connection, {}, cutoff + 1, READS, keys)
        documents = history.order_events(connection, request, keys)
    told = sorted({e.seq: e for e in (*of_refund, *of_keys)}.values(), key=_KNOWN)
    others = Others.of(store, request, documents, told)
    return Scene(
        decision, request, policy, champion, rates, circumstances_of(record), then, since,
        documents, others.reserved(store), others.refused, told,
    )  # fmt: skip


def _request(asked: StoredEvent, keys: Mapping[str, str], cutoff: int) -> RefundRequest:
    """The request as it was decided: sent again, it may have come later and from another device."""
    persons = {COLUMN_OF[entity]: keys.get(entity) for entity in ENTITIES}
    return RefundRequest.as_checked({**asked.payload, **persons, "known_at": cutoff})


def _says(event: StoredEvent, event_type: str, said: Mapping[str, Any]) -> bool:
    payload = event.payload
    return event.event_type == event_type and all(payload.get(k) == v for k, v in said.items())


def _stored(event: Event) -> StoredEvent:
    """An event that is only supposed, as it would be stored."""
    payload = event.content()
    event_id = derive_event_id(event.event_type, payload, repeats=event.repeats)
    return StoredEvent(0, event_id, event.event_type, event.known_at, payload)


def _numbers(facts: Mapping[str, Fact]) -> dict[str, float]:
    """Facts as a feature row has them: numbers, and the codes of words."""
    found: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, float | int) and name not in BESIDE:
            found[name] = float(value)
        elif name in CODES and isinstance(value, str | bool):
            found[name] = float(code_of(name, value))
    return found


def _as_kept(value: Any) -> Fact:
    """A fact as it was: a list of JSON is a tuple."""
    return tuple(value) if isinstance(value, list) else value
