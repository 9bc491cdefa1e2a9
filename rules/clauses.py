"""Checking what a policy says in CEL: conditions, limits, amounts, and the rules' examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rules.condition import Amount, Condition, ConditionError, known_facts, nearest
from rules.document import Limit
from rules.problems import Findings
from rules.source import Path

#: The condition of a rule or limit, and the amount of its follow-up where it has one.
Clause = tuple[Condition, Amount | None]
_Text = TypeVar("_Text", Condition, Amount)


@dataclass(frozen=True, slots=True)
class Clauses:
    """What a policy says in CEL, compiled, in the order of its rules and its limits."""

    rules: tuple[Clause, ...]
    limits: tuple[Clause, ...]


def clauses_of(
    findings: Findings, limits: Mapping[int, Limit], kinds: Mapping[str, str]
) -> Clauses:
    """Compile all that is sound and note what is not, also in rules that have other problems.

    `limits` are those whose keys and values are sound, by their position.
    """
    rules = []
    for i in range(len(findings.items("rules"))):
        condition = _compiled(Condition, findings, ("rules", i, "when"), kinds)
        amount = _amount(findings, ("rules", i), kinds)
        _check_examples(findings, ("rules", i, "examples"), condition, kinds)
        if condition is not None:
            rules.append((condition, amount))
    limited = []
    for i, limit in limits.items():
        amount = _amount(findings, ("limits", i), kinds)
        if limit.fact in kinds:
            limited.append((Condition.parse(limit.when, kinds), amount))
        else:
            _add_window_problem(findings, i, limit, kinds)
    return Clauses(tuple(rules), tuple(limited))


def _compiled(
    kind: type[_Text], findings: Findings, path: Path, kinds: Mapping[str, str]
) -> _Text | None:
    text = findings.at(path)
    if not isinstance(text, str):
        return None  # reported with the structure
    try:
        return kind.parse(text, kinds)
    except ConditionError as error:
        for fault in error.faults:
            findings.add_fault(path, fault)
    return None


def _amount(findings: Findings, path: Path, kinds: Mapping[str, str]) -> Amount | None:
    return _compiled(Amount, findings, (*path, "follow_up", "amount_minor"), kinds)


_COUNTED = re.compile(r"refund_count_by_([a-z_]+)_(\d+)d")


def counted_windows(kinds: Iterable[str]) -> dict[str, list[int]]:
    """Return the windows, in days, over which each entity's refunds are counted.

    >>> counted_windows(["refund_count_by_ip_30d", "refund_count_by_ip_7d", "final_sale"])
    {'ip': [7, 30]}
    """
    windows: dict[str, list[int]] = {}
    for name in kinds:
        if found := _COUNTED.fullmatch(name):
            windows.setdefault(found[1], []).append(int(found[2]))
    return {entity: sorted(days) for entity, days in windows.items()}


def _add_window_problem(findings: Findings, i: int, limit: Limit, kinds: Mapping[str, str]) -> None:
    """Name the windows over which the catalog counts this entity's refunds, and the nearest."""
    windows = counted_windows(kinds)
    days = windows.get(limit.by)
    if not days:
        message = "refunds are not counted by this entity"
        findings.add(("limits", i, "by"), message, limit.by, " or ".join(windows) or "no limits")
        return
    near = min(days, key=lambda window: abs(window - limit.days))
    expected = " or ".join(filter(None, (", ".join(map(str, days[:-1])), str(days[-1]))))
    message = f"refunds by {limit.by} are not counted over this window"
    findings.add(("limits", i, "days"), message, str(limit.days), expected, str(near))


def _check_examples(
    findings: Findings, path: Path, condition: Condition | None, kinds: Mapping[str, str]
) -> None:
    for name, outcome in (("hit", True), ("miss", False), ("unknown", None)):
        for i, example in enumerate(findings.items(*path, name)):
            if not isinstance(example, dict):
                continue  # reported with the structure
            here = (*path, name, i)
            unsound = [fact for fact in example if not _is_sound(findings, here, fact, kinds)]
            if condition is None or unsound:
                continue
            known = known_facts(example, {fact: kinds[fact] for fact in example})
            held = condition.holds(known)
            if held is not outcome:
                got = {True: "hit", False: "miss", None: "unknown"}[held]
                missing = [fact for fact in condition.reads if fact not in known]
                why = f" (unknown: {', '.join(missing)})" if missing else ""
                remedy = (
                    "tell the example what is unknown" if held is None else "change one of both"
                )
                findings.add(here, "the example fails", f"{got}{why}", f"{name}; {remedy}")


def _is_sound(findings: Findings, path: Path, name: str, kinds: Mapping[str, str]) -> bool:
    value, kind = findings.at((*path, name)), kinds.get(name)
    if kind is None:
        near = nearest(name, kinds)
        findings.add((*path, name), "unknown fact", name, "a fact's name", near, key=True)
        return False
    try:
        sound = value is None or name in known_facts({name: value}, {name: kind})
    except (TypeError, OverflowError):
        sound = False
    if not sound:  # NaN too: an example says null for unknown
        kind = {"strings": "list of strings"}.get(kind, kind)
        findings.add((*path, name), "wrong type", repr(value)[:200], f"a {kind} or null")
    return sound
