"""What one policy changes in another, told in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rules.document import Advice, Examples, Limit, Rule, Suggestion
from rules.policy import Policy


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: of which part, of which of its keys, from what to what.

    `key` is empty where the part as a whole comes (`before` is None) or goes (`after` is None).
    """

    part: str
    key: str
    before: str | None
    after: str | None

    def to_text(self) -> str:
        """Write the change as a sentence.

        >>> print(Change("limit a_day", "at_most", "5", "3").to_text())
        limit a_day: at_most 5 becomes 3
        >>> print(Change("rule final_sale", "", "PREVENT when `final_sale`", None).to_text())
        rule final_sale goes: PREVENT when `final_sale`
        """
        if not self.key:
            verb, whole = ("comes", self.after) if self.before is None else ("goes", self.before)
            return f"{self.part} {verb}: {whole}"
        what = f"{self.part}: {self.key}" if self.part else self.key
        if self.before == self.after:
            return f"{what} changed"
        return f"{what} {self.before} becomes {self.after}"

    def to_json(self) -> dict[str, Any]:
        """Return the change as plain JSON values, its sentence among them."""
        return {**asdict(self), "text": self.to_text()}


#: The parts of a policy, and of each its keys with what they say; the whole stands under "".
_Parts = Mapping[str, Mapping[str, str]]


def changes(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Tell what `after` does differently: first the settings, then bands, rules and limits.

    Version, note and author are left out, and so is whatever only spells out a default.

    >>> one = Policy.from_yaml("{version: '1', bands: [], rules: []}", facts={})
    >>> other = Policy.from_yaml("{version: '2', fallback: ALLOW, bands: [], rules: []}", facts={})
    >>> [change.to_text() for change in changes(one, other)]
    ['fallback MANUAL_REVIEW becomes ALLOW']
    """
    old, new = _parts(before), _parts(after)
    found = list(_differences(old, new))
    if len(before.bands) == len(after.bands):
        found += _differences(_bands(before), _bands(after))
    else:
        found += _differences(_bands_by_text(before), _bands_by_text(after))
    found += _differences(_rules(before), _rules(after))
    found += _order(before, after)
    return tuple(found)


def _differences(old: _Parts, new: _Parts) -> Iterator[Change]:
    for part in dict.fromkeys([*old, *new]):
        if part not in new:
            yield Change(part, "", old[part][""], None)
        elif part not in old:
            yield Change(part, "", None, new[part][""])
        else:
            for key, said in old[part].items():
                now = new[part][key]
                if key and said != now:
                    yield Change(part, key, _shown(said), _shown(now))


def _parts(policy: Policy) -> _Parts:
    """Everything but bands, rules and limits."""
    parts: dict[str, dict[str, str]] = {
        "": {"fallback": policy.fallback, "orders_complete": _text(policy.orders_complete)},
        "lists": {name: _text(held) for name, held in policy.lists},
        "costs": {name: _text(held) for name, held in policy.costs},
    }
    if policy.exploration is not None:
        share, most = policy.exploration.share, policy.exploration.max_amount_minor
        parts["exploration"] = {
            "": f"a share of {_text(share)} up to {_text(most)}",
            "share": _text(share),
            "max_amount_minor": _text(most),
        }
    return parts


def _bands(policy: Policy) -> _Parts:
    return {
        f"band {i}": {name: _text(held) for name, held in band}
        for i, band in enumerate(policy.bands, 1)
    }


def _bands_by_text(policy: Policy) -> _Parts:
    texts = []
    for band in policy.bands:
        said = [f"{name} {_text(held)}" for name, held in band if name != "action" and held]
        texts.append(f"{band.action} at {', '.join(said)}")
    return {f"band {text}": {"": text} for text in texts}


def _rules(policy: Policy) -> _Parts:
    written: list[Rule | Limit] = [*policy.document.rules, *policy.document.limits]
    by_id = {rule.id: rule for rule in written}
    told: dict[str, dict[str, str]] = {}
    for compiled in policy.rules:
        rule = by_id[compiled.id]
        kind = "rule" if isinstance(rule, Rule) else "limit"
        told[f"{kind} {rule.id}"] = _said(rule) | {"mode": compiled.hit.mode}
    return {part: {**said, "": _whole(said)} for part, said in told.items()}


def _said(rule: Rule | Limit) -> dict[str, str]:
    """What a rule or limit says under each of its keys, defaults spelled out."""
    said = {name: _text(held) for name, held in rule if name != "version"}
    said["on_unknown"] = "review" if rule.reviews_unknown else "miss"
    if isinstance(rule, Limit):
        return said | {"description": rule.told, "when": f"`{rule.when}`"}
    return said | {"when": f"`{_text(rule.when)}`"}


def _whole(said: Mapping[str, str]) -> str:
    how = ", ".join(said[key] for key in ("stage", "mode") if key in said)
    return f"{said['action']} when {said['when']} ({how})"


def _order(before: Policy, after: Policy) -> Iterator[Change]:
    """Rules that stand in another order: the first of those that hit gives the follow-up."""
    old, new = ([rule.id for rule in policy.rules] for policy in (before, after))
    common = set(old) & set(new)
    pairs = list(zip(*([one for one in ids if one in common] for ids in (old, new)), strict=True))
    moved = [i for i, (one, other) in enumerate(pairs) if one != other]
    if moved:
        sides = zip(*pairs[moved[0] : moved[-1] + 1], strict=True)
        yield Change("rules", "order", *(", ".join(side) for side in sides))


def _text(held: object) -> str:
    """Write a value as its author would, on one line."""
    match held:
        case None:
            return "none"
        case bool():
            return str(held).lower()
        case float():
            return f"{held:.10g}"
        case tuple():
            return ", ".join(map(_text, held)) or "none"
        case Suggestion(code=code, amount_minor=str(amount)):
            return f"{code} of `{' '.join(amount.split())}`"
        case Suggestion(code=code) | Advice(code=code):
            return str(code)
        case Examples():
            return held.model_dump_json()
        case _:
            return " ".join(str(held).split())


def _shown(said: str) -> str:
    """Examples are compared in full and told as one word."""
    return "examples" if said.startswith("{") else said
