"""Proposals: policies that load, that keep all they should, and decide as their bands counted."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decision import Action
from rules.document import Band, Costs
from rules.engine import Score, band_action
from rules.policy import Policy, PolicyError, load_policy
from serving.facts import FACTS
from training.bands import Outcome, outcome
from training.proposal import next_version, propose, with_bands
from training.thresholds import Placement, default_costs, place_bands

DEFAULT = Path(__file__).parents[2] / "rules" / "policies" / "default.yaml"
BANDS = (
    Band(action=Action.MANUAL_REVIEW, probability_at_least=1e-05,
         expected_loss_minor_at_least=1234.0),
    Band(action=Action.PREVENT, probability_at_least=0.935),
)  # fmt: skip
WRITTEN = [
    {"action": "MANUAL_REVIEW", "probability_at_least": 1e-05,
     "expected_loss_minor_at_least": 1234},
    {"action": "PREVENT", "probability_at_least": 0.935},
]  # fmt: skip


def placed_on(probability: np.ndarray, amount: np.ndarray, costs: Costs, room: float) -> Placement:
    return place_bands(probability, amount, days=10, costs=costs, reviews_per_day=room)


def proposed(current: str, placed: Placement, before: Outcome, **changes: object) -> str:
    return propose(
        current, placed.chosen.outcome, before, facts=FACTS, base_currency="GBP",
        model_version="7", data_until="2026-03-31", **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def current() -> str:
    return DEFAULT.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def policy(current: str) -> Policy:
    return Policy.from_yaml(current, facts=FACTS)


def test_a_proposal_is_the_current_policy_with_other_bands(
    current: str, policy: Policy, tmp_path: Path
) -> None:
    draw = np.random.default_rng(3)
    probability, amount = draw.beta(0.3, 3, 3000), draw.lognormal(8, 1, 3000)
    placed = placed_on(probability, amount, policy.costs, 12)
    before = outcome(policy.bands, probability, probability, amount, 10, policy.costs)
    text = proposed(current, placed, before, reviews_per_day=12.0)
    (tmp_path / "proposal.yaml").write_text(text, encoding="utf-8")
    loaded = load_policy(tmp_path / "proposal.yaml", FACTS)

    plain = tuple(band.model_copy(update={"follow_up": None}) for band in loaded.bands)
    assert plain == placed.chosen.outcome.policy
    assert loaded.bands[0].follow_up == policy.bands[0].follow_up
    assert (policy.version, loaded.version) == ("2", "3")
    assert loaded.costs == policy.costs.model_copy(update={"reviews_per_day": 12.0})
    assert loaded.hash != policy.hash
    pounds = f"{placed.chosen.outcome.cost_minor_per_1000 / 100:,.2f} GBP"
    assert loaded.note == (
        "bands proposed by training run of model 7 on data until 2026-03-31: expected cost per "
        f"1,000 refunds {pounds} instead of {before.cost_minor_per_1000 / 100:,.2f} GBP"
    )
    was, now = yaml.safe_load(current), yaml.safe_load(text)
    for document in (was, now):
        document["costs"].pop("reviews_per_day", None)
        for changed in ("version", "note", "bands"):
            document.pop(changed)
    assert was == now
    said = [line for line in current.splitlines() if "#" in line]
    kept = [line for line in text.splitlines() if "#" in line]
    assert [line for line in said if line not in kept] == [
        "# A review must be worth its cost, and a refusal needs both near certainty and money at "
        "stake. A",
        "# code sent to the account's owner often settles what the model doubts before a person "
        "has looked.",
    ]
    assert text[text.index("\nrules:") :] == current[current.index("\nrules:") :]


_AMOUNTS = st.one_of(st.just(np.nan), st.integers(0, 200_000).map(float))


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0.5, 0.9, 0.95]), _AMOUNTS),
             min_size=2, max_size=60),
    st.floats(0, 5),
)  # fmt: skip
def test_the_engine_decides_as_the_outcome_counted(rows: list, room: float) -> None:
    rows = [*rows, (0.7, 30_000.0)]  # one amount at least is known
    current = DEFAULT.read_text(encoding="utf-8")
    probability, amount = np.array(rows).T
    placed = placed_on(probability, amount, default_costs(), room)
    loaded = Policy.from_yaml(proposed(current, placed, placed.chosen.outcome), facts=FACTS)
    decided = Counter(
        band_action(
            Score(float(p), loaded.costs.expected_loss_minor(float(p), float(a))), loaded.bands
        )
        for p, a in rows
    )
    counted = placed.chosen.outcome
    assert (counted.paid.count, counted.held.count, counted.prevented.count) == (
        decided[Action.ALLOW], decided[Action.MANUAL_REVIEW], decided[Action.PREVENT]
    )  # fmt: skip
    assert counted.reviews_per_day <= room + 1e-9


RULES = "rules: []\n"
LAYOUTS = {
    "plain": "version: '1'\nnote: why\nbands: []\n" + RULES,
    "no note": "version: '1'  # first\nbands: []\n" + RULES,
    "an empty note": "version: '1'\nnote:  # none\nbands: []\n" + RULES,
    "a folded note": "version: '1'\nnote: >-\n  why\n  not\n\nbands: []\n" + RULES,
    "a note of two lines": "version: '1'\nnote: why\n  not\nbands: []\n" + RULES,
    "the bands last": "version: '1'\nrules: []\nnote: n\nbands:\n- action: PREVENT\n"
                      "  probability_at_least: 0.5",
    "bands in a block": "version: '1'\nbands:\n\n  # one\n  - action: PREVENT  # severe\n"
                        "    probability_at_least: 0.5  # half\n\n" + RULES,
    "costs in flow": "version: '1'\ncosts: {fee_minor: 5, }  # dear\nbands: []\n" + RULES,
    "empty costs": "version: '1'\ncosts: {}\nbands: []\n" + RULES,
    "costs with a capacity": "version: '1'\ncosts:\n  reviews_per_day: 3  # few\n  fee_minor: 1\n"
                             "bands: []\n" + RULES,
    "costs right above": "version: '1'\ncosts:\n    fee_minor: 1\n    # more\nbands: []\n" + RULES,
    "a comment on top": "# a policy\nbands: []\nversion: '1'\n" + RULES,
    "indented": "  version: '1'\n  # old\n  bands: []\n  rules: []\n",
    "quoted keys": '"version": "1"\n"bands": []\n"rules": []\n',
    "a marked document": "%YAML 1.1\n---\nversion: '1'\nbands: []\nrules: []\n...\n",
    "returns": "version: '1'\r\ncosts:\r\n  fee_minor: 5\r\nbands: []\r\nrules: []\r\n",
    "explicit keys": "? version\n: '1'\n? bands\n: []\n? rules\n: []\n",
    "JSON": json.dumps({"version": "1", "note": "é", "bands": [], "rules": []}),
    "flow": "{version: '1', bands: [], rules: [], costs: {fee_minor: 3}}",
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("room", [None, 60.0, 2.5])
def test_any_layout_is_edited_or_written_afresh(layout: str, room: float | None) -> None:
    current = LAYOUTS[layout]
    text = with_bands(current, BANDS, note="new: 'é' \"#\" 🙂", reviews_per_day=room)
    was, now = yaml.safe_load(current), yaml.safe_load(text)
    if room is not None:
        was["costs"] = was.get("costs", {}) | {"reviews_per_day": room}
    assert now == was | {"version": "2", "note": "new: 'é' \"#\" 🙂", "bands": WRITTEN}
    assert Policy.from_yaml(text, facts=FACTS).bands == BANDS
    for comment in ("# first", "# none", "# dear", "# few", "    # more", "# a policy", "%YAML"):
        assert (comment in text) == (comment in current)
    assert ("\n  - {action" in text) == (layout not in ("JSON", "flow", "indented"))
    assert not any(gone in text for gone in ("# one", "# severe", "# half", "# old"))


def test_what_is_added_is_added_in_order(current: str) -> None:
    text = with_bands(LAYOUTS["no note"], (), note="n", reviews_per_day=3)
    assert text.splitlines()[:3] == [
        'version: "2"  # first',
        'note: "n"',
        "costs: {reviews_per_day: 3}",
    ]


def test_no_bands_are_a_proposal_too(policy: Policy, current: str) -> None:
    text = with_bands(current, (), note="pay all")
    assert Policy.from_yaml(text, facts=FACTS).bands == ()
    assert "\nbands: []\n" in text


def test_a_proposal_is_proposed_upon(current: str) -> None:
    once = with_bands(current, BANDS, note="one", reviews_per_day=9)
    twice = with_bands(once, BANDS[:1], note="two", reviews_per_day=8)
    assert with_bands(twice, BANDS, note="one", version="3", reviews_per_day=9) == once


def test_a_version_can_be_chosen_and_must_be_one(current: str, policy: Policy) -> None:
    placed = placed_on(np.array([0.5]), np.array([1000.0]), policy.costs, 1)
    text = proposed(current, placed, placed.chosen.outcome, version="spring")
    assert Policy.from_yaml(text, facts=FACTS).version == "spring"
    with pytest.raises(PolicyError, match="version: wrong value"):
        proposed(current, placed, placed.chosen.outcome, version="a b")
    assert [next_version(v) for v in ("9", "v1.09", "x")] == ["10", "v1.10", "x-2"]


def test_a_faulty_policy_is_refused_with_its_own_problems(current: str, policy: Policy) -> None:
    placed = placed_on(np.array([0.5]), np.array([1000.0]), policy.costs, 1)
    with pytest.raises(PolicyError, match="fallbck: unknown key"):
        proposed(current.replace("\nfallback", "\nfallbck"), placed, placed.chosen.outcome)


def test_a_band_keeps_the_follow_up_of_its_action() -> None:
    current = """
version: "1"
bands:
  - {action: MANUAL_REVIEW, probability_at_least: 0.2, follow_up: {code: STEP_UP_VERIFICATION}}
  - {action: MANUAL_REVIEW, probability_at_least: 0.1, expected_loss_minor_at_least: 90,
     follow_up: {code: STORE_CREDIT}}
  - {action: PREVENT, probability_at_least: 0.9}
rules: []
"""
    bands = [Band(action=Action.MANUAL_REVIEW, expected_loss_minor_at_least=400),
             Band(action=Action.PREVENT, probability_at_least=0.8)]  # fmt: skip
    held, refused = Policy.from_yaml(with_bands(current, bands, note="try"), facts={}).bands
    assert held.follow_up is not None
    assert held.follow_up.code == "STEP_UP_VERIFICATION"
    assert refused.follow_up is None
