"""Warnings: what a sound policy probably means otherwise."""

import json

import pytest

from rules.advice import warnings
from rules.diagnostics import render
from rules.policy import Policy

KINDS = {"reason": "string", "claim": "string", "channel": "string", "tags": "strings",
         "count_30d": "double", "count_90d": "double"}  # fmt: skip
WORDS = {"reason": ("EMPTY_BOX", "CHANGED_MIND"), "claim": ("FULL", "PARTIAL"), "tags": ("A", "B")}


def policy(when, hit, miss, **changes) -> Policy:
    rule = {
        "id": "a", "version": 1, "stage": "risk", "when": when, "action": "PREVENT",
        "reason": "A", "description": "d", "examples": {"hit": [hit], "miss": [miss]}, **changes,
    }  # fmt: skip
    document = {"version": "1", "bands": [], "rules": [rule]}
    return Policy.from_yaml(json.dumps(document, indent=1), facts=KINDS)


EMPTY, CHANGED = {"reason": "EMPTY_BOX"}, {"reason": "CHANGED_MIND"}


@pytest.mark.parametrize(
    ("when", "hit", "miss", "told"),
    [
        ('reason == "EMPTY_BOX"', EMPTY, CHANGED, []),
        ('reason == "EMPTY_BOXX"', {"reason": "EMPTY_BOXX"}, CHANGED,
         [("reason is not known to be 'EMPTY_BOXX'", "EMPTY_BOX")]),
        ('"EMPTY BOX" != reason', CHANGED, {"reason": "EMPTY BOX"},
         [("reason is not known to be 'EMPTY BOX'", "EMPTY_BOX")]),
        ('reason in ["EMPTY_BOX", "LOST", "\\x41"]', EMPTY, CHANGED,
         [("reason is not known to be 'LOST'", None), ("reason is not known to be 'A'", None)]),
        ('"C" in tags', {"tags": ["C"]}, {"tags": []}, [("tags is not known to be 'C'", None)]),
        ('channel == "KIOSK" || "PARTIAL" == claim', {"claim": "PARTIAL"},
         {"channel": "WEB", "claim": "FULL"}, []),
    ],
)  # fmt: skip
def test_words_that_nobody_knows_are_pointed_at(when, hit, miss, told):
    found = warnings(policy(when, hit, miss), WORDS)
    assert [(p.message, p.nearest) for p in found if p.place == "rules.a.when"] == told
    assert all(one.is_warning for one in found)


def test_examples_are_looked_through_too():
    hit = {"count_30d": 3, "count_90d": 3}
    sound = policy("count_90d >= 3.0 && claim == 'FULL'", hit | {"claim": "FULL"}, {"claim": "FUL"})
    found = warnings(sound, WORDS)
    assert [(one.place, one.message, one.nearest) for one in found] == [
        ("rules.a.examples.hit[0].count_30d", "the rule does not read this fact", "count_90d"),
        ("rules.a.examples.miss[0].claim", "claim is not known to be 'FUL'", "FULL"),
    ]
    report = render(found, sound.text, "p.yaml")
    assert report.startswith("warning: the rule does not read this fact\n   --> p.yaml:")
    assert report.endswith("\n\n2 warnings in p.yaml")


def test_a_fact_that_only_the_follow_up_reads_is_read():
    partial = {"code": "PARTIAL_AMOUNT", "amount_minor": "count_30d"}
    sound = policy("count_90d > 1.0", {"count_90d": 2, "count_30d": 1}, {"count_90d": 1},
                   follow_up=partial)  # fmt: skip
    assert warnings(sound, WORDS) == ()


def test_a_policy_without_doubts_is_not_read_again(monkeypatch):
    sound = policy("claim == 'FULL'", {"claim": "FULL"}, {"claim": "PARTIAL"})
    monkeypatch.delattr("rules.source.Source.read")
    assert warnings(sound, WORDS) == ()
