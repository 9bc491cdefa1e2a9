"""The policy, checked and ready to decide by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rules.checks import PolicyError, Problem, checked
from rules.condition import Condition
from rules.decision import FACT_MISSING, Action, Mode, Outcome, RuleResult
from rules.document import Band, Costs, Exploration, Rule

__all__ = ["SCORE_FACTS", "CompiledRule", "Policy", "PolicyError", "Problem", "load_policy"]

#: Facts that come from the score rather than from the catalog; a condition may read them too.
SCORE_FACTS: Mapping[str, str] = {"probability": "double", "expected_loss_minor": "double"}


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule ready to run. Its hit and its miss never vary, so they are made once."""

    condition: Condition
    hit: RuleResult
    miss: RuleResult
    unsettled: RuleResult

    @classmethod
    def of(cls, rule: Rule, condition: Condition, *, orders_complete: bool) -> CompiledRule:
        """Make a rule ready; one that requires what the policy cannot promise runs as shadow."""
        miss = RuleResult(
            rule_id=rule.id,
            version=rule.version,
            mode=Mode.SHADOW if rule.requires and not orders_complete else rule.mode,
            stage=rule.stage,
            outcome=Outcome.MISS,
            action=rule.action,
            calls_for=Action.ALLOW,
            reason=rule.reason,
            description=rule.description,
        )
        return cls(
            condition=condition,
            hit=replace(miss, outcome=Outcome.HIT, calls_for=rule.action),
            miss=miss,
            unsettled=replace(
                miss,
                outcome=Outcome.UNKNOWN,
                calls_for=Action.MANUAL_REVIEW if rule.reviews_unknown else Action.ALLOW,
                reason=FACT_MISSING,
            ),
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A checked policy. `reads` names the facts its rules read, each with its kind."""

    version: str
    hash: str
    note: str | None
    author: str | None
    orders_complete: bool
    fallback: Action
    rate_limited: Action
    costs: Costs
    exploration: Exploration | None
    bands: tuple[Band, ...]
    rules: tuple[CompiledRule, ...]
    reads: Mapping[str, str]

    @classmethod
    def from_yaml(cls, text: str, *, facts: Mapping[str, str]) -> Policy:
        """Read a policy over the given facts (name -> "double" | "string" | "bool").

        Raises:
            PolicyError: with every problem in the text, each with its place and what was expected.

        >>> Policy.from_yaml("{version: '1', bands: [], ruels: []}", facts={})
        Traceback (most recent call last):
            ...
        rules.checks.PolicyError: policy refused, 2 problems:
          line 1:1 rules: missing; expected a value
          line 1:34 ruels: unknown key; expected a key of the policy; did you mean rules?
        """
        kinds = {**facts, **SCORE_FACTS}
        document, conditions = checked(text, kinds)
        reads = sorted({name for condition in conditions for name in condition.reads})
        return cls(
            version=document.version,
            hash=document.digest(),
            note=document.note,
            author=document.author,
            orders_complete=document.orders_complete,
            fallback=document.fallback,
            rate_limited=document.rate_limited,
            costs=document.costs,
            exploration=document.exploration,
            bands=document.bands,
            rules=tuple(
                CompiledRule.of(rule, condition, orders_complete=document.orders_complete)
                for rule, condition in zip(document.rules, conditions, strict=True)
            ),
            reads={name: kinds[name] for name in reads},
        )


def load_policy(path: Path, facts: Mapping[str, str]) -> Policy:
    """Read a policy from a UTF-8 file; errors as in `Policy.from_yaml`, or OSError."""
    return Policy.from_yaml(path.read_text(encoding="utf-8"), facts=facts)
