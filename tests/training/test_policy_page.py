"""The policy guide: its table is today's, its commands exist, its examples load."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
import yaml

from cli import app
from features.catalog import BY_NAME
from rules.policy import DECISION_FACTS, Policy
from serving.facts import FACTS, MEANING
from training.policy_page import PAGE, groups, render

TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/recourse (.+)$", TEXT, re.M)
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.M | re.S)


def test_the_table_is_up_to_date() -> None:
    assert render(TEXT) == TEXT, "docs/policy.md is stale: python -m training.policy_page"


def test_every_fact_is_in_the_table_or_on_the_features_page() -> None:
    told = [name for names in groups().values() for name in names]
    assert len(told) == len(set(told))
    assert {*told, *BY_NAME} >= FACTS.keys() | DECISION_FACTS.keys()
    assert MEANING.keys() == {*told} | (MEANING.keys() & BY_NAME.keys())
    for name in told:
        assert f"| `{name}` |" in TEXT


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_guide_is_one(line: str) -> None:
    """Read as the command line is read, options and arguments and all, and not run."""
    command = typer.main.get_command(app)
    words = shlex.split(line)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("recourse", words)


def test_all_of_the_commands_are_shown() -> None:
    """Those of policies and lists, and the backtest."""
    shown = {" ".join(words.split()[:2]) for words in re.findall(r"recourse (.+?)[`\n]", TEXT)}
    groups_of = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for group in ("policy", "lists"):
        assert {f"{group} {name}" for name in groups_of[group].commands} <= shown
    assert "backtest --policy" in shown


def test_the_examples_of_the_guide_are_a_policy() -> None:
    rule, rest = BLOCKS
    document = {
        "version": "guide", "bands": [], **yaml.safe_load(rest), "rules": yaml.safe_load(rule),
    }  # fmt: skip
    policy = Policy.from_yaml(yaml.safe_dump(document), facts=FACTS)
    assert [result.hit.rule_id for result in policy.rules] == [
        "night_order_instant", "email_per_week",
    ]  # fmt: skip
    assert policy.exploration is not None


def test_the_windows_of_limits_are_those_that_are_counted() -> None:
    (said,) = re.findall(r"features count \(([\d, ]+) days\)", TEXT)
    counted = re.findall(r"refund_count_by_customer_(\d+)d\b", " ".join(BY_NAME))
    assert {int(days) for days in said.split(", ")} == {int(days) for days in counted}
