"""Stored decisions as `Logged`, fast enough to decide millions of them again.

A record keeps what a decision rested on: the feature row as a vector, and whatever else a policy
could read (`facts`), the lists, the draw. Only the facts asked for are taken out. What bears no
facts, for it was stored by a program that did not keep them, cannot be decided again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from features.catalog import FEATURES
from rules.condition import Facts, KnownFacts, known_facts
from rules.decision import Action, Source
from rules.engine import Circumstances, ListHit, ListMatch, Score
from rules.logged import Logged
from serving.facts import FACTS
from serving.store.decisions import RawDecision
from serving.store.store import Store

ALWAYS: Final = ("payable_minor", "amount_minor", "refund_reason", "channel", "currency")
"""Facts that are there in any case, where they are known."""


_ROW: Final = frozenset(feature.name for feature in FEATURES)


def logged_decisions(
    store: Store,
    *,
    reads: Collection[str] | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Iterator[Logged]:
    """Decisions with ``since <= decided_at < until`` (epoch ms; None: no bound), oldest first.

    Of the facts those that `reads` names, and `ALWAYS`; all when None. Decisions that were stored
    without facts are left out. Read in parts, so that neither memory nor the database is held.
    """
    take = reader(reads)
    for raw in store.raw_decisions(since, until):
        logged = take(raw)
        if logged is not None:
            yield logged


def reader(reads: Collection[str] | None) -> Callable[[RawDecision], Logged | None]:
    """Make what turns stored decisions into `Logged`, with the facts named; all when None.

    It answers None for a decision whose record holds no facts.

    >>> record = {"keys": {"customer": "c"}, "decision": {"action": "ALLOW", "source": "MODEL",
    ...     "policy_hash": "h", "propensity": 1.0, "explored": False, "exploration_draw": 0.5,
    ...     "hits": []}, "probability": 0.25, "expected_loss_minor": None, "disposition": None,
    ...     "sandbox": None, "lists": {"block": [], "allow": [], "entities": ["customer"]},
    ...     "facts": {"channel": "APP"}}
    >>> row = struct.pack("<2d", 1250.0, 3.0)
    >>> names = ("payable_minor", "refund_count_by_customer_30d")
    >>> raw = RawDecision("s", "r", 1_000, orjson.dumps(record).decode(), row, names)
    >>> reader(["refund_count_by_customer_30d", "claim"])(raw).facts
    {'payable_minor': 1250.0, 'refund_count_by_customer_30d': 3.0, 'channel': 'APP'}
    """
    wanted = None if reads is None else frozenset({*reads, *ALWAYS})
    kinds = {
        name: kind
        for name, kind in FACTS.items()
        if (wanted is None or name in wanted) and (kind != "double" or name not in _ROW)
    }

    @lru_cache(maxsize=16)
    def plan(names: Sequence[str]) -> tuple[Callable[[bytes], tuple[float, ...]], list[str]]:
        """How to take the facts wanted out of a vector, and their names."""
        taken = [
            (wanted is None or name in wanted) and FACTS.get(name, "double") == "double"
            for name in names
        ]  # where a word is a fact, its code in the row, under the same name, is none
        layout = struct.Struct("<" + "".join("d" if one else "8x" for one in taken))
        return layout.unpack, [name for name, one in zip(names, taken, strict=True) if one]

    def take(raw: RawDecision) -> Logged | None:
        _, refund_id, decided_at, text, vector, names = raw[:6]
        record = orjson.loads(without_misses(text))
        told = record.get("facts")
        if told is None:
            return None
        values, named = plan(names)
        row = zip(named, values(vector), strict=True)
        facts = KnownFacts({name: value for name, value in row if value == value})
        facts.update(known_facts(told, kinds))
        return _logged(refund_id, decided_at, facts, record)

    return take


def without_misses(record: str) -> str:
    """A record without the rules that missed or could not be settled, most of it and not needed.

    A quote within a JSON text is escaped, so what looks like these keys are these keys, and what
    misses is named by ids without brackets. A record in another order of keys stays as it is.

    >>> without_misses('{"hits":[],"unknowns":[{"why":["a"]}],"misses":[{"rule_id":"b"}],"c":1}')
    '{"hits":[],"c":1}'
    >>> without_misses('{"misses":[],"unknowns":[]}')
    '{"misses":[],"unknowns":[]}'
    """
    start = record.find('"unknowns":[')
    misses = record.find('"misses":[', start)
    end = record.find("],", misses)
    if min(start, misses, end) < 0 or record[misses - 2 : misses] != "],":
        return record
    return record[:start] + record[end + 2 :]


def _logged(refund_id: str, decided_at: int, facts: Facts, record: Mapping[str, Any]) -> Logged:
    decision = record["decision"]
    probability = record["probability"]
    return Logged(
        refund_id,
        record["keys"]["customer"],
        decided_at,
        facts,
        None if probability is None else Score(probability, record["expected_loss_minor"]),
        circumstances_of(record),
        None,
        decision["policy_hash"],
        _ACTIONS[decision["action"]],
        _SOURCES[decision["source"]],
        decision["propensity"],
        decision["explored"],
        tuple([rule["rule_id"] for rule in decision["hits"]]),
    )  # by place, which takes half the time


def circumstances_of(record: Mapping[str, Any]) -> Circumstances:
    """What else bore on a decision, from its record."""
    return Circumstances(
        _lists(record["lists"]),
        _action(record["disposition"]),
        _action(record["sandbox"]),
        record["decision"]["exploration_draw"],
    )


_ACTIONS: Final = {action.value: action for action in Action}
_SOURCES: Final = {source.value: source for source in Source}


def _action(word: str | None) -> Action | None:
    return None if word is None else _ACTIONS[word]


def _lists(kept: Mapping[str, Sequence[Any]]) -> ListMatch:
    nothing = _nothing_listed(tuple(kept["entities"]))
    if not kept["block"] and not kept["allow"]:
        return nothing
    return ListMatch(
        block=tuple(ListHit(*hit) for hit in kept["block"]),
        allow=tuple(ListHit(*hit) for hit in kept["allow"]),
        entities=nothing.entities,
    )


@lru_cache(maxsize=256)
def _nothing_listed(entities: tuple[str, ...]) -> ListMatch:
    """What most requests have, made once for each of the few kinds of requests."""
    return ListMatch(entities=frozenset(entities))
