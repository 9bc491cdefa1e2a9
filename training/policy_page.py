"""The table of facts in the policy guide, made from what the facts say of themselves: `render`.

``python -m training.policy_page`` writes ``docs/policy.md`` anew; a test fails when it is stale.
Everything above the table is a person's; the features have a page of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from features.catalog import BY_NAME
from features.ledger import LEDGER
from rules.policy import DECISION_FACTS
from serving.facts import MEANING

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "policy.md"
BEGINS: Final = "<!-- facts: made by python -m training.policy_page, do not edit below -->\n"

_TITLES: Final[Mapping[str, str]] = {
    "of the request": "What the request says, or one look at its order",
    "of the order": "What the order's own documents say; money in the order's currency",
    "of the decision": "What the score and the lists say",
}


def render(page: str) -> str:
    """The page with its table made anew, whatever stands below the mark now.

    Raises:
        ValueError: the page has no mark, or several.

    >>> made = render("# Guide\\n" + BEGINS + "old")
    >>> made.startswith("# Guide\\n<!-- facts") and "`final_sale` | bool" in made
    True
    >>> render("# Guide")
    Traceback (most recent call last):
    ...
    ValueError: expected one line '<!-- facts: made by python -m training.policy_page, do not edit \
below -->' in the page, got 0
    """
    above, *below = page.split(BEGINS)
    if len(below) != 1:
        raise ValueError(f"expected one line {BEGINS.rstrip()!r} in the page, got {len(below)}")
    return above + BEGINS + "".join(_tables())


def groups() -> Mapping[str, tuple[str, ...]]:
    """The facts that are no features, by what tells them: every name exactly once."""
    decided = tuple(name for name in MEANING if name in DECISION_FACTS)
    ledger = tuple(name for name in MEANING if name in LEDGER)
    told = {*BY_NAME, *decided, *ledger}
    return {
        "of the request": tuple(name for name in MEANING if name not in told),
        "of the order": ledger,
        "of the decision": decided,
    }


def _tables() -> Iterator[str]:
    for group, names in groups().items():
        yield f"\n### {_TITLES[group]}\n\n| fact | kind | unit | what it is |\n|---|---|---|---|\n"
        yield from _rows(names)


def _rows(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        fact = MEANING[name]
        yield f"| `{name}` | {fact.kind} | {fact.unit} | {fact.says} |\n"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
