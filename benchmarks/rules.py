"""What the rules cost beside the model: 50 of them on one request, against one `Booster.predict`.

``python -m benchmarks.rules`` prints one JSON document. Times are medians over requests that all
differ; the contenders take turns on each, so that they share the machine's moods, and have one
thread each. `evaluate` picks the known facts of the request and evaluates every rule; `decide` is
the whole decision; `library` is what `evaluate` does, by the CEL library: a context of the known
facts, 50 programs executed on it. The two must agree on every rule and request.
"""

import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cel
import lightgbm
import numpy as np
from threadpoolctl import threadpool_limits

from features.catalog import MODEL_FEATURES
from rules.condition import Facts
from rules.decision import Outcome
from rules.engine import Circumstances, Score, decide, evaluate, known_of
from rules.policy import Policy, load_policy
from serving.facts import FACTS

RULES = 50
REQUESTS = 2000
TREES, LEAVES = 250, 31
MOST = 3.0  # times one prediction
UNKNOWN_SHARE = 0.1
DEFAULT = Path(__file__).parents[1] / "rules" / "policies" / "default.yaml"
WORDS = {
    "currency": ("GBP", "EUR", "USD"),
    "refund_reason": ("CHANGED_MIND", "ITEM_NOT_RECEIVED", "EMPTY_BOX"),
    "channel": ("WEB", "APP", "PHONE"),
}
SHAPES = (
    "{0} >= 3.0 && {1} > 0.6",
    "{0} > 2.0 * {1} || {2} >= 5.0",
    'refund_reason == "EMPTY_BOX" && {0} >= 2.0',
    '!(refund_reason in ["CHANGED_MIND", "EMPTY_BOX"]) && {0} - {1} > 1.0 && {2} < 4.0',
    'final_sale && channel == "WEB" && {0} > 1.0',
    "order_known ? {0} > 4.0 : {1} > 2.0",
)


def policy_of(numbers: list[str]) -> Policy:
    """A policy of 50 rules, most of them on two or three numbers of the catalog, all different."""
    names = iter(numbers * 3)
    rules = []
    for i in range(RULES):
        shape = SHAPES[i % len(SHAPES)]
        when = shape.format(*islice(names, shape.count("{")))
        facts = [name for name in FACTS if name in when.replace("(", " ").split()]
        hit, miss = examples(when, facts)
        rules.append(
            {
                "id": f"rule_{i}", "version": 1, "stage": ("hard", "risk")[i % 2], "when": when,
                "on_unknown": "miss", "action": "MANUAL_REVIEW", "reason": "BENCHMARK",
                "description": "One of fifty", "examples": {"hit": [hit], "miss": [miss]},
            }
        )  # fmt: skip
    bands = [{"action": "MANUAL_REVIEW", "probability_at_least": 0.5}]
    document = {"version": "benchmark", "bands": bands, "rules": rules}
    return Policy.from_yaml(json.dumps(document), facts=FACTS)


def examples(when: str, facts: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find facts on which a condition hits and misses, by trying some."""
    found: dict[bool, dict[str, Any]] = {}
    random = np.random.default_rng(0)
    program = cel.compile(when)
    while len(found) < 2:
        drawn = {name: value(FACTS[name], name, random) for name in facts}
        found[program.execute(cel.Context(drawn))] = drawn
    return found[True], found[False]


def value(kind: str, name: str, random: np.random.Generator) -> float | str | bool:
    """A value as requests bear it: counts mostly, a word, a flag."""
    if kind == "string":
        return str(random.choice(WORDS.get(name, ("A", "B"))))
    return bool(random.random() < 0.5) if kind == "bool" else float(random.integers(0, 8))


def requests_of() -> list[Facts]:
    """Requests with all facts, a tenth of them unknown."""
    random = np.random.default_rng(1)
    kinds = {name: kind for name, kind in FACTS.items() if kind != "strings"}
    return [
        {
            name: None if random.random() < UNKNOWN_SHARE else value(kind, name, random)
            for name, kind in kinds.items()
        }
        for _ in range(REQUESTS)
    ]


def booster_of(random: np.random.Generator) -> lightgbm.Booster:
    """A model of the catalog's width, trained on random data."""
    rows = random.normal(size=(4000, len(MODEL_FEATURES)))
    label = rows[:, 0] + rows[:, 1] * rows[:, 2] + random.normal(size=len(rows)) > 0
    parameters = {"objective": "binary", "num_leaves": LEAVES, "verbosity": -1, "seed": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, label), TREES)


def by_the_library(policy: Policy, programs: list[Any], facts: Facts, score: Score) -> list[Any]:
    """Evaluate every rule as the CEL library would have it."""
    context = cel.Context(known_of(facts, score, policy))
    answers: list[bool | None] = []
    for program in programs:
        try:
            answers.append(program.execute(context))
        except (RuntimeError, TypeError, ValueError):
            answers.append(None)
    return answers


def measure() -> dict[str, Any]:
    """Medians in microseconds, ratios to the prediction, and whether the two evaluators agree."""
    random = np.random.default_rng(2)
    numbers = [feature.name for feature in MODEL_FEATURES if feature.unit != "code"]
    random.shuffle(numbers)
    policy, default = policy_of(numbers[:56]), load_policy(DEFAULT, FACTS)
    programs = [cel.compile(rule.condition.text) for rule in policy.rules]
    booster = booster_of(random)
    rows = random.normal(size=(REQUESTS, 1, len(MODEL_FEATURES)))
    score, circumstances = Score(0.3, 500.0), Circumstances(exploration_draw=0.5)
    contenders: dict[str, Callable[[Facts, Any], Any]] = {
        "predict": lambda _, row: booster.predict(row),
        "evaluate": lambda facts, _: evaluate(facts, score, policy),
        "decide": lambda facts, _: decide(facts, score, policy, circumstances),
        "decide_default": lambda facts, _: decide(facts, score, default, circumstances),
        "library": lambda facts, _: by_the_library(policy, programs, facts, score),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    differing = 0
    held = {Outcome.HIT: True, Outcome.MISS: False, Outcome.UNKNOWN: None}
    with threadpool_limits(1):
        for facts, row in zip(requests_of(), rows, strict=True):
            answers = {}
            for name, run in contenders.items():
                start = perf_counter()
                answers[name] = run(facts, row)
                seconds[name].append(perf_counter() - start)
            ours = [held[result.outcome] for result in answers["evaluate"]]
            differing += ours != answers["library"]
    micros = {name: round(median(times) * 1e6, 2) for name, times in seconds.items()}
    return {
        "rules": len(policy.rules),
        "facts_read": len(policy.reads),
        "facts": len(FACTS),
        "default": {"rules": len(default.rules), "facts_read": len(default.reads)},
        "model": {"trees": booster.num_trees(), "features": booster.num_feature()},
        "requests": REQUESTS,
        "median_us": micros,
        "times_one_prediction": {
            name: round(taken / micros["predict"], 3) for name, taken in micros.items()
        },
        "requests_answered_differently": differing,
    }


def main() -> int:
    """Print the measurements; 1 when rules cost too much or the two evaluators differ."""
    found = measure()
    print(json.dumps(found, indent=2))
    dear = found["times_one_prediction"]["evaluate"] > MOST
    return int(dear or found["requests_answered_differently"] > 0)


if __name__ == "__main__":
    sys.exit(main())
