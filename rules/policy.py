"""The policy, checked and ready to decide by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.events import ENTITIES
from rules.checks import checked
from rules.clauses import Clauses
from rules.condition import Amount, Condition, nearest
from rules.decision import (
    FACT_MISSING,
    Action,
    FollowUp,
    Mode,
    Outcome,
    RuleResult,
    Stage,
)
from rules.document import Band, Costs, Document, Exploration, Limit, Lists, Rule
from rules.evaluation import Known, Run
from rules.problems import PolicyError, Problem

__all__ = [
    "DECISION_FACTS",
    "CompiledRule",
    "Policy",
    "PolicyError",
    "Problem",
    "load_policy",
    "policy_text",
]

#: Facts that a decision itself brings: the score, and what the lists say of each entity that the
#: request names. Conditions may read them beside those of catalog and request.
DECISION_FACTS: Mapping[str, str] = {
    "probability": "double",
    "expected_loss_minor": "double",
    **{f"{entity}_on_{name}_list": "bool" for name in ("block", "allow") for entity in ENTITIES},
}


#: What a request asks for in the end, in minor units of its own currency: a partial amount is less.
_ASKED = "asked_minor"
_MANY = 256


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule or limit ready to run. Its hit and its miss never vary, so they are made once."""

    condition: Condition
    hit: RuleResult
    miss: RuleResult
    unsettled: RuleResult
    follow_up: FollowUp | None = None
    amount: Amount | None = None
    _told: dict[tuple[str, ...], RuleResult] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def id(self) -> str:
        """The id of the rule or limit."""
        return self.hit.rule_id

    @property
    def reads(self) -> frozenset[str]:
        """The facts that condition and follow-up read."""
        return frozenset(
            self.condition.reads + ((*self.amount.reads, _ASKED) if self.amount else ())
        )

    def evaluated(self, known: Known) -> RuleResult:
        """Return what the rule says of one request, given the facts that are known of it."""
        held = self.condition.run(known)
        if held is None:
            return self.unsettled_by(known)
        return self.hit if held else self.miss

    def unsettled_by(self, known: Known) -> RuleResult:
        """Return the unknown, with the facts that are missing.

        Kept for the next one: the same few are missing of most requests.
        """
        missing = tuple([name for name in self.condition.reads if name not in known])
        result = self._told.get(missing)
        if result is None:
            if len(self._told) == _MANY:
                self._told.clear()
            result = self._told[missing] = replace(self.unsettled, unknown_facts=missing)
        return result

    def suggested(self, known: Known) -> FollowUp | None:
        """Return the follow-up of a hit; an amount only where it is less than what is asked."""
        follow_up = self.follow_up
        if follow_up is None or self.amount is None:
            return follow_up
        amount_minor, asked_minor = self.amount.minor(known), known.get(_ASKED)
        if amount_minor is None or asked_minor is None or not 0 < amount_minor < asked_minor:
            return None
        return replace(follow_up, amount_minor=amount_minor)

    def in_mode(self, mode: Mode) -> CompiledRule:
        """Return the rule in another mode."""
        hit, miss, unsettled = (
            replace(result, mode=mode) for result in (self.hit, self.miss, self.unsettled)
        )
        return replace(self, hit=hit, miss=miss, unsettled=unsettled)

    @classmethod
    def of_rule(
        cls, rule: Rule, condition: Condition, amount: Amount | None, *, orders_complete: bool
    ) -> CompiledRule:
        """Make a rule ready; one that requires what the policy cannot promise runs as shadow."""
        mode = Mode.SHADOW if rule.requires and not orders_complete else rule.mode
        return cls._of(rule, mode, rule.stage, rule.description, condition, amount)

    @classmethod
    def of_limit(cls, limit: Limit, condition: Condition, amount: Amount | None) -> CompiledRule:
        """Make a limit ready: a rule of a stage of its own."""
        return cls._of(limit, limit.mode, Stage.LIMIT, limit.told, condition, amount)

    @classmethod
    def _of(
        cls, rule: Rule | Limit, mode: Mode, stage: Stage, description: str,
        condition: Condition, amount: Amount | None,
    ) -> CompiledRule:  # fmt: skip
        miss = RuleResult(
            rule_id=rule.id,
            version=rule.version,
            mode=mode,
            stage=stage,
            outcome=Outcome.MISS,
            action=rule.action,
            calls_for=Action.ALLOW,
            reason=rule.reason,
            description=description,
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
            follow_up=FollowUp(rule.follow_up.code, rule.id) if rule.follow_up else None,
            amount=amount,
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A checked policy.

    `rules` holds the rules and then the limits, which are rules of a stage of their own. `reads`
    names the facts that rules, limits and follow-ups read, each with its kind. `text` is the YAML
    as given; a policy made by `with_mode` or `without` keeps the text it was made from.
    """

    version: str
    hash: str
    note: str | None
    author: str | None
    orders_complete: bool
    fallback: Action
    lists: Lists
    costs: Costs
    exploration: Exploration | None
    bands: tuple[Band, ...]
    rules: tuple[CompiledRule, ...]
    reads: Mapping[str, str]
    text: str
    document: Document
    #: What `reads` names, apart: facts of catalog and request with their kinds, and names of
    #: facts that the decision itself brings.
    given: Mapping[str, str] = field(init=False, repr=False, compare=False)
    told: tuple[str, ...] = field(init=False, repr=False, compare=False)
    #: The rules taken apart for `decide`, which runs them millions of times in a backtest.
    steps: tuple[tuple[Run, RuleResult, CompiledRule], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        given = {name: kind for name, kind in self.reads.items() if name not in DECISION_FACTS}
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "told", tuple(self.reads.keys() & DECISION_FACTS.keys()))
        steps = tuple((rule.condition.run, rule.miss, rule) for rule in self.rules)
        object.__setattr__(self, "steps", steps)

    @classmethod
    def from_yaml(cls, text: str, *, facts: Mapping[str, str]) -> Policy:
        """Read a policy over the given facts (name -> "double" | "string" | "bool" | "strings").

        Raises:
            PolicyError: with every problem in the text, each with its place and what was expected.

        >>> Policy.from_yaml("{version: '1', bands: [], ruels: []}", facts={})
        Traceback (most recent call last):
            ...
        rules.problems.PolicyError: policy refused, 2 problems:
          line 1:1 rules: missing; expected a value
          line 1:27 ruels: unknown key; expected a key of the policy; did you mean rules?
        """
        kinds = {**facts, **DECISION_FACTS}
        document, clauses = checked(text, kinds)
        return cls._of(document, clauses, text, kinds)

    @classmethod
    def _of(
        cls, document: Document, clauses: Clauses, text: str, kinds: Mapping[str, str]
    ) -> Policy:
        complete = document.orders_complete
        rules = [
            CompiledRule.of_rule(rule, *clause, orders_complete=complete)
            for rule, clause in zip(document.rules, clauses.rules, strict=True)
        ]
        rules += [
            CompiledRule.of_limit(limit, *clause)
            for limit, clause in zip(document.limits, clauses.limits, strict=True)
        ]
        reads = {name for rule in rules for name in rule.reads}
        return cls(
            version=document.version,
            hash=document.digest(),
            note=document.note,
            author=document.author,
            orders_complete=document.orders_complete,
            fallback=document.fallback,
            lists=document.lists,
            costs=document.costs,
            exploration=document.exploration,
            bands=document.bands,
            rules=tuple(rules),
            reads={name: kinds[name] for name in sorted(reads & kinds.keys())},
            text=text,
            document=document,
        )

    def with_mode(self, rule_id: str, mode: Mode) -> Policy:
        """Return this policy with one rule or limit in another mode, for what-if reports.

        Version and hash get a suffix: it is no policy that was ever checked in.

        Raises:
            KeyError: there is no such rule or limit; the message names the nearest.
        """
        rule = self._rule(rule_id)
        rules = tuple(other.in_mode(mode) if other is rule else other for other in self.rules)
        return self._derived(f"+{rule_id}={mode.value}", rules)

    def without(self, rule_id: str) -> Policy:
        """Return this policy without one rule or limit; suffix and errors as in `with_mode`."""
        rule = self._rule(rule_id)
        return self._derived(f"-{rule_id}", tuple(r for r in self.rules if r is not rule))

    def _rule(self, rule_id: str) -> CompiledRule:
        for rule in self.rules:
            if rule.id == rule_id:
                return rule
        near = nearest(rule_id, [rule.id for rule in self.rules])
        hint = f"; did you mean {near}?" if near else ""
        raise KeyError(f"no rule or limit {rule_id!r} in policy {self.version}{hint}")

    def _derived(self, suffix: str, rules: tuple[CompiledRule, ...]) -> Policy:
        read = {name for rule in rules for name in rule.reads}
        return replace(
            self,
            version=self.version + suffix,
            hash=self.hash + suffix,
            rules=rules,
            reads={name: kind for name, kind in self.reads.items() if name in read},
        )


def load_policy(path: Path, facts: Mapping[str, str]) -> Policy:
    """Read a policy from a UTF-8 file; errors as in `Policy.from_yaml`, or OSError."""
    return Policy.from_yaml(policy_text(path), facts=facts)


def policy_text(path: Path) -> str:
    """Read a policy's text from a file, its lines ended by line feeds alone.

    Raises:
        OSError: the file cannot be read.
        PolicyError: it is no UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        byte = f"the byte 0x{content[error.start]:02x}"
        problem = Problem(str(path), line, column, "not a text", byte, "UTF-8")
        raise PolicyError([problem]) from None
