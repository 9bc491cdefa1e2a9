"""The table of the blueprint's checks: what it names exists, and no rule is missing from it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from features.catalog import BY_NAME
from rules.decision import Mode, Stage
from tests.rules.default import HOSTILE, loaded
from tests.serving.hostile_cases import HOSTILE as ON_THE_WIRE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "blueprint.md").read_text(encoding="utf-8")
(HELD,) = re.findall(r"`HELD` is\s+`([^`]+)`", PAGE)

ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| blueprint |")
]
_NAMES = r"((?:`\w+`(?:, | and )?)+)"


def named(kind: str, cell: str) -> list[str]:
    """What a cell names after a word such as "rule" or "rules"."""
    lists = re.findall(rf"\b{kind}s? {_NAMES}", cell)
    return [name for names in lists for name in re.findall(r"`(\w+)`", names)]


@cache
def functions_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_section_of_the_blueprint_has_its_table():
    assert re.findall(r"^## (.+)$", PAGE, re.M) == [
        "Approve by itself, when", "Review, when", "Deny by itself, when",
        "The policy's constraints", "Edge cases", "Controls beside the score",
        "Signals of the weighted score",
    ]  # fmt: skip
    assert len(ROWS) > 60
    assert all(len(row) == 3 and all(row) for row in ROWS)


def test_every_rule_and_limit_is_in_the_table_by_its_kind_and_mode():
    stages = {rule.hit.rule_id: rule.hit for rule in loaded(orders_complete=True).rules}
    rules = {name for _, ours, _ in ROWS for name in named("rule", ours)}
    limits = {name for _, ours, _ in ROWS for name in named("limit", ours)}
    assert rules == {id_ for id_, rule in stages.items() if rule.stage is not Stage.LIMIT}
    assert limits == {id_ for id_, rule in stages.items() if rule.stage is Stage.LIMIT}
    said = {name for _, ours, _ in ROWS for name in re.findall(r"`(\w+)` \(shadow\)", ours)}
    assert said == {id_ for id_, rule in stages.items() if rule.mode is Mode.SHADOW}


def test_every_feature_that_it_names_is_in_the_catalog():
    names = {name for _, ours, _ in ROWS for name in named("feature", ours)}
    assert len(names) > 12
    assert names <= BY_NAME.keys()


@pytest.mark.parametrize(("check", "ours", "proof"), ROWS, ids=[row[0] for row in ROWS])
def test_a_check_is_ours_by_a_test_or_not_ours_with_the_reason(check, ours, proof):
    if proof == "none":
        assert ours.startswith("not ours: "), check
        return
    (node,) = re.findall(r"^`([^`]+)`$", proof)
    file, _, test = node.replace("HELD", HELD).partition("::")
    name, _, case = test.partition("[")
    assert file.startswith("tests/")
    assert (ROOT / file).is_file()
    assert name in functions_in(file)
    if case:
        assert case.removesuffix("]") in HOSTILE.keys() & ON_THE_WIRE.keys()
        assert f"`{case.removesuffix(']')}`" in ours


def test_what_the_table_proves_by_the_wire_are_all_rules():
    proven = {case for _, _, proof in ROWS for case in re.findall(r"^`HELD\[(\w+)\]`$", proof)}
    elsewhere = {"amount_above_captured", "shipping_fee_not_owed", "subscription_cancelled_late",
                 "goodwill_limit"}  # fmt: skip
    assert proven | elsewhere == ON_THE_WIRE.keys()
