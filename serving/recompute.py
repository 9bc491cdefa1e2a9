"""Decide logged decisions again, each from its record and its policy: the same must come out.

A record holds the feature row, the other facts, the score, the lists, the draw; the store holds the
policy under its hash. So what was decided can be shown to follow from what was known, and a record
or policy that was altered shows as a decision that comes out differently.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from rules.engine import decide
from rules.policy import Policy, PolicyError
from serving.logged import reader
from serving.policies import AlteredPolicyError, loaded
from serving.store.store import Store

MOST_LISTED: Final = 1_000
"""How many differing decisions are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Differing:
    """A decision that does not come out as it was logged."""

    score_id: str
    refund_id: str
    policy: str
    was: str
    now: str | None
    problem: str

    def __str__(self) -> str:
        return (
            f"refund {self.refund_id} (score {self.score_id}), policy {self.policy}: {self.problem}"
        )


@dataclass
class Recomputation:
    """Decisions by what became of them.

    ``same`` have the same action; of those, ``whole`` are the same in every word: source, reasons,
    every rule's outcome, draw, propensity, follow-up. ``older`` were logged by a program that did
    not keep all facts; they cannot be decided again and are in no other figure.
    """

    decisions: int = 0
    same: int = 0
    whole: int = 0
    older: int = 0
    by_source: Counter[str] = field(default_factory=Counter)
    by_action: Counter[str] = field(default_factory=Counter)
    by_policy: Counter[str] = field(default_factory=Counter)
    differing: list[Differing] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """The share with the same action; None where nothing could be decided again."""
        return self.same / self.decisions if self.decisions else None

    def to_json(self) -> dict[str, Any]:
        """One document: the figures, then the differing decisions that are listed."""
        return {
            "decisions": self.decisions,
            "same": self.same,
            "whole": self.whole,
            "share": self.share,
            "older": self.older,
            "by_source": dict(self.by_source.most_common()),
            "by_action": dict(self.by_action.most_common()),
            "by_policy": dict(self.by_policy.most_common()),
            "differing": [
                {"score_id": d.score_id, "refund_id": d.refund_id, "policy": d.policy,
                 "was": d.was, "now": d.now, "problem": d.problem}
                for d in self.differing
            ],
        }  # fmt: skip

    def to_text(self) -> str:
        """The figures and the first differing decisions, a line each."""
        share = "no decision to compare" if self.share is None else f"share {self.share:.6g}"
        told = (
            f"{self.same:,} of {self.decisions:,} decisions come out with the same action: {share}"
        )
        lines = [told]
        if self.whole != self.same:
            lines.append(f"{self.same - self.whole:,} of them differ in something else")
        if self.older:
            lines.append(f"{self.older:,} were logged without all facts, and are left out")
        lines += [f"  {one}" for one in self.differing[:20]]
        return "\n".join(lines)


def recompute(store: Store, since: int | None = None, until: int | None = None) -> Recomputation:
    """Decide the decisions with ``since <= decided_at < until`` (epoch ms; None: all) again."""
    found = Recomputation()
    policies = _PoliciesByHash(store)
    take = reader(None)
    for raw in store.raw_decisions(since, until):
        logged = take(raw)
        if logged is None:
            found.older += 1
            continue
        was = orjson.loads(raw.record)["decision"]
        found.decisions += 1
        found.by_source[was["source"]] += 1
        found.by_action[was["action"]] += 1
        found.by_policy[was["policy_version"]] += 1
        now, problem = None, policies.problem(was["policy_hash"])
        if problem is None:
            policy = policies[was["policy_hash"]]
            now = decide(logged.facts, logged.score, policy, logged.circumstances).to_json()
            problem = _difference(was, now)
            found.same += now["action"] == was["action"]
            found.whole += problem is None
        if problem is not None and len(found.differing) < MOST_LISTED:
            found.differing.append(
                Differing(
                    score_id=raw.score_id,
                    refund_id=raw.refund_id,
                    policy=was["policy_version"],
                    was=was["action"],
                    now=now["action"] if now else None,
                    problem=problem,
                )
            )
    return found


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str | None:
    """What differs between two decisions, None if nothing; the action first."""
    differing = [name for name in now if was.get(name) != now[name]]
    if not differing:
        return None
    told = (f"{name} was {_shown(was.get(name))}, is {_shown(now[name])}" for name in differing[:3])
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return "; ".join(told) + more


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:80] + "…"


class _PoliciesByHash:
    """The policies that decided, loaded when they are first named, or why one cannot be."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loaded: dict[str, Policy] = {}
        self._problems: dict[str, str] = {}

    def __getitem__(self, digest: str) -> Policy:
        return self._loaded[digest]

    def problem(self, digest: str) -> str | None:
        """Why the policy of this hash cannot decide again; None if it can."""
        if digest not in self._loaded and digest not in self._problems:
            kept = self._store.policy_by_hash(digest)
            if kept is None:
                self._problems[digest] = f"its policy, hash {digest}, is not in the store"
            else:
                try:
                    self._loaded[digest] = loaded(kept)
                except (PolicyError, AlteredPolicyError) as error:
                    self._problems[digest] = f"its policy cannot be loaded: {error}"
        return self._problems.get(digest)
