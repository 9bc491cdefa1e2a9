"""A policy proposal: the current policy's text with other bands, for a person to check and adopt.

The text is edited where it must be and kept elsewhere, comments and all. Only the comment that
stands right above ``bands`` and those among the bands go: they speak of the bands that go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rules.document import Band
from rules.policy import Policy
from rules.source import Source
from serving.language import ENGLISH
from training.bands import Outcome

_ABOVE = "# Placed by training where they are expected to cost least; the note says on what data."
_Edit = tuple[int, int, str]


def propose(
    current: str,
    chosen: Outcome,
    instead_of: Outcome,
    *,
    facts: Mapping[str, str],
    base_currency: str,
    model_version: str,
    data_until: str,
    reviews_per_day: float | None = None,
    version: str | None = None,
) -> str:
    """Write the policy that ``current`` becomes with the chosen bands: a complete document.

    Arguments:
        current: the YAML text of the policy that is used now.
        chosen: the bands to propose and what they are expected to lead to.
        instead_of: the same of the current bands, on the same refunds.
        facts: what conditions may read, as `rules.policy.load_policy` takes it.
        base_currency: the currency of the costs, an ISO 4217 code.
        model_version: the model that the probabilities come from.
        data_until: the last day of the refunds, as the note is to say it.
        reviews_per_day: the capacity the bands keep to, written into the costs if given.
        version: the proposal's version; the current one raised if not given.

    Raises:
        PolicyError: the current policy, or the proposal, is not one.

    >>> import numpy as np
    >>> from training.thresholds import default_costs, outcome, place_bands
    >>> refunds = np.array([0.1, 0.5, 0.9]), np.full(3, 9000.0)
    >>> placed = place_bands(*refunds, days=1, costs=default_costs(), reviews_per_day=1)
    >>> now = outcome((), refunds[0], *refunds, days=1, costs=default_costs())
    >>> print(propose("{version: '1', bands: [], rules: []}", placed.chosen.outcome, now, facts={},
    ...               base_currency="GBP", model_version="3", data_until="2026-03-31"), end="")
    version: '2'
    note: 'bands proposed by training run of model 3 on data until 2026-03-31: expected cost per
      1,000 refunds 9,000.00 GBP instead of 47,500.00 GBP'
    bands:
    - action: MANUAL_REVIEW
      probability_at_least: 0.1
      expected_loss_minor_at_least: 951
    - action: PREVENT
      probability_at_least: 0.9
    rules: []
    """
    note = (
        f"bands proposed by training run of model {model_version} on data until {data_until}: "
        f"expected cost per 1,000 refunds {money(chosen.cost_minor_per_1000, base_currency)} "
        f"instead of {money(instead_of.cost_minor_per_1000, base_currency)}"
    )
    Policy.from_yaml(current, facts=facts)
    proposal = with_bands(
        current, chosen.policy, note=note, version=version, reviews_per_day=reviews_per_day
    )
    Policy.from_yaml(proposal, facts=facts)
    return proposal


def money(amount_minor: float, currency: str) -> str:
    """An amount as a person reads it, to the whole minor unit.

    >>> money(1234567.0, "GBP"), money(1234567.0, "JPY")
    ('12,345.67 GBP', '1,234,567 JPY')
    """
    return ENGLISH.money(amount_minor, currency)


def next_version(version: str) -> str:
    """Raise the last number of a version, or append one.

    >>> next_version("1"), next_version("2026-04.09"), next_version("start")
    ('2', '2026-04.10', 'start-2')
    """
    number = re.search(r"\d+$", version)
    if number is None:
        return f"{version}-2"
    raised = str(int(number[0]) + 1).zfill(len(number[0]))
    return version[: number.start()] + raised


def with_bands(
    current: str,
    bands: Sequence[Band],
    *,
    note: str,
    version: str | None = None,
    reviews_per_day: float | None = None,
) -> str:
    r"""Return the text of a sound policy with other bands, version, note and, if given, capacity.

    A band keeps the follow-up that the policy's first band of its action has.
    Where the layout allows no edit, such as in JSON, the whole is written afresh.

    >>> print(with_bands("version: '1'  # the first\nbands: []\nrules: []\n",
    ...                  [Band(action="PREVENT", probability_at_least=0.9)], note="try"), end="")
    version: "2"  # the first
    note: "try"
    bands:
      - {action: PREVENT, probability_at_least: 0.9}
    rules: []
    """
    document: dict[str, Any] = Source.read(current).value
    version = version or next_version(document["version"])
    capacity = {} if reviews_per_day is None else {"reviews_per_day": _plain(reviews_per_day)}
    advice = {band["action"]: band["follow_up"] for band in reversed(document["bands"])
              if band.get("follow_up")}  # fmt: skip
    written = [
        {key: _plain(value) for key, value in band.model_dump(mode="json").items()
         if value is not None}
        | ({"follow_up": advice[band.action]} if band.action in advice else {})
        for band in bands
    ]  # fmt: skip
    wanted = {"version": version, "note": note, **document}
    wanted |= {"version": version, "note": note, "bands": written}
    if capacity:
        wanted["costs"] = document.get("costs", {}) | capacity
    root = yaml.compose(current, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode) and not root.flow_style:
        edited = _Text(current, root).edited(version, note, written, capacity)
        read = Source.read(edited)
        if not read.slips and read.value == wanted:
            return edited
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True, width=90)


def _plain(value: Any) -> Any:
    """Whole numbers without a point, as people write them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flow(value: Any) -> str:
    """A value on one line."""
    return yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    ).removesuffix("\n").removesuffix("\n...")  # fmt: skip


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**6).rstrip("\n")


class _Text:
    """A policy's text and where its parts stand."""

    def __init__(self, text: str, root: yaml.MappingNode) -> None:
        self.text = text
        self.parts = {key.value: (key, value) for key, value in root.value}
        self.indent = " " * root.start_mark.column

    def edited(
        self, version: str, note: str, bands: list[dict[str, Any]], capacity: dict[str, Any]
    ) -> str:
        """The text with these parts replaced or added."""
        edits = [self._replace("version", _quoted(version))]
        edits.append(
            self._replace("note", _quoted(note))
            if "note" in self.parts
            else self._after(self.parts["version"][1], f"{self.indent}note: {_quoted(note)}")
        )
        if capacity:
            edits.append(self._costs(capacity))
        edits.append(self._bands(bands))
        text = self.text
        # From the end, so that marks stay true; of two at one place the later one first.
        places = sorted(range(len(edits)), key=lambda i: (edits[i][0], i), reverse=True)
        for start, end, new in (edits[i] for i in places):
            text = text[:start] + new + text[end:]
        return text

    def _replace(self, key: str, written: str) -> _Edit:
        node = self.parts[key][1]
        start, end = node.start_mark.index, self._end(node)
        return start, end, written if end > start else f" {written}"  # `note:` says nothing yet

    def _bands(self, bands: list[dict[str, Any]]) -> _Edit:
        key, value = self.parts["bands"]
        start = above = self._line_start(key.start_mark.index)
        while above and self._line(above - 1).startswith(f"{self.indent}#"):
            above = self._line_start(above - 1)
        commented = start > above > 0  # a comment that opens the file is about the file
        lines = [f"{self.indent}bands:{'' if bands else ' []'}"]
        lines += [f"{self.indent}  - {_flow(band)}" for band in bands]
        if commented:
            lines.insert(0, self.indent + _ABOVE)
        end = self._line_end(self._end(value))
        return above if commented else start, end, "\n".join(lines)

    def _costs(self, capacity: dict[str, Any]) -> _Edit:
        [(name, number)] = capacity.items()
        if "costs" not in self.parts:
            line = f"{self.indent}costs: {_flow(capacity)}"
            last = self.parts["note" if "note" in self.parts else "version"][1]
            return self._after(last, line)
        costs = self.parts["costs"][1]
        for key, value in costs.value:
            if key.value == name:
                return value.start_mark.index, self._end(value), str(number)
        if costs.flow_style:
            end = self._end(costs)
            inner = self.text[costs.start_mark.index : end - 1].rstrip().rstrip(",")
            comma = ", " if costs.value else ""
            return costs.start_mark.index, end, f"{inner}{comma}{name}: {number}}}"
        line = " " * costs.start_mark.column + f"{name}: {number}"
        return self._after(costs.value[-1][1], line)

    def _after(self, node: yaml.Node, line: str) -> _Edit:
        """Add a line below the one on which a node ends."""
        end = self._line_end(self._end(node))
        return end, end, f"\n{line}"

    def _end(self, node: yaml.Node) -> int:
        """Where the last character of a node stands: a block's own mark is after what follows."""
        while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
        start, end = node.start_mark.index, node.end_mark.index
        return int(start + len(self.text[start:end].rstrip()))

    def _line(self, index: int) -> str:
        return self.text[self._line_start(index) : self._line_end(index)]

    def _line_start(self, index: int) -> int:
        return self.text.rfind("\n", 0, index) + 1

    def _line_end(self, index: int) -> int:
        end = self.text.find("\n", index)
        return len(self.text) if end < 0 else end
