"""The benchmark of a new world on a tiny one: labels, truth, money, and what must be refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import world
from benchmarks.plants import Planted, sharing
from benchmarks.world import claims, costs_of, kinds, labels_against_truth, main, to_text
from features.money import Rates
from features.tables import Tables
from rules.document import Costs
from training.dataset import Examples, TimeSplit

COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)


def examples(abuse: list[float], amount: list[float]) -> Examples:
    n = len(abuse)
    return Examples(
        np.arange(n), np.array([f"r{k}" for k in range(n)], object), np.arange(n), np.arange(n),
        {"payable_minor": np.array(amount)}, np.array(abuse), np.full(n, "ANALYST", object),
    )  # fmt: skip


def sharing_alone(tables: Tables, rates: Rates, split: TimeSplit) -> Iterator[Planted]:
    yield Planted("shared_refunds", str(split.train.refund_id[-1]), tables, sharing(split, 1))


@pytest.fixture(scope="module")
def printed() -> tuple[int, dict[str, Any]]:
    """One run, with one plant, and without the pictures of the report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "planted", sharing_alone)
        patch.setattr("training.page.write_page", lambda report, picture, path: path.touch())
        said: list[str] = []
        patch.setattr("builtins.print", lambda text, **where: said.append(text))
        code = main(["--customers", "1800", "--days", "400", "--seed", "21"])
    return code, json.loads(said[-1])


def test_one_document_and_the_exit_code_is_its_claims(printed: tuple[int, dict[str, Any]]) -> None:
    code, document = printed
    assert document["claims"] == claims(document)
    assert code == (0 if all(document["claims"].values()) else 1)
    assert document["world"]["rows"] > document["world"]["refunds"] > 3000
    names = [one["name"] for one in document["test"]["baselines"]]
    assert names == [
        "blueprint_score", "blueprint_score_ip_high", "logistic_regression", "amount_alone",
    ]  # fmt: skip
    assert "in truth" in to_text(document)


def test_by_labels_the_views_say_what_the_training_said(
    printed: tuple[int, dict[str, Any]],
) -> None:
    _, document = printed
    labels = document["views"]["labels"]
    assert labels["refunds"] == document["trained"]["n_test"]
    for name, figure in document["test"].items():
        if name not in ("baselines", "blueprint_unknown"):
            assert figure == pytest.approx(labels[name], rel=1e-9), name
    assert labels["costs"]["model"]["cost_per_1000_minor"] == pytest.approx(
        labels["cost_per_1000_minor"]["value"]
    )


def test_the_truth_is_of_all_and_kinds_add_up_to_it(printed: tuple[int, dict[str, Any]]) -> None:
    _, document = printed
    labels, labelled, truth = document["views"].values()
    assert labels["refunds"] == labelled["refunds"] < truth["refunds"]
    assert labels["abuse"] < labelled["abuse"] <= truth["abuse"]
    found = document["kinds"].values()
    assert sum(kind["refunds"] for kind in found) == truth["abuse"]
    held = sum(kind["refunds"] * kind["held_share"] for kind in found)
    model = truth["costs"]["model"]
    assert held == pytest.approx(truth["abuse"] * model["share_of_abuse_held"])
    paying, denying = truth["costs"]["paying_all"], truth["costs"]["blueprint_denies"]
    assert paying["reviewed_share"] == paying["prevented_share"] == 0
    assert paying["model_saves"] == pytest.approx(
        paying["cost_per_1000_minor"] - model["cost_per_1000_minor"]
    )
    assert denying["model_saves_interval"]["low"] < denying["model_saves"]


def test_a_random_split_is_refused_and_leaks_are_found_where_there_are_any(
    printed: tuple[int, dict[str, Any]],
) -> None:
    _, document = printed
    split = document["random_split"]
    assert split["refused"]
    assert "mixed in time" in split["reasons"][0]
    (plant,) = document["planted_leaks"]
    assert plant["found"] and document["claims"]["planted_leaks_found"]
    assert plant["else_accused"] == ["interleaved: the split"]  # it lies in the time of both
    assert plant["says"][0].startswith("leak: 1 refunds are in both")


def test_each_claim_can_fail(printed: tuple[int, dict[str, Any]]) -> None:
    """From a document in which all holds, one change each."""
    _, document = printed
    good = copy.deepcopy(document)
    good["test"]["calibration_slope"]["value"] = 1.0
    for baseline in good["test"]["baselines"]:
        baseline["average_precision_gain"]["low"] = 0.1
    for one in good["views"].values():
        for way in one["costs"].values():
            way["model_saves_interval"]["low"] = 1.0
    assert all(claims(good).values())

    def broken(*path: Any, value: Any) -> set[str]:
        bad = copy.deepcopy(good)
        place = bad
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return {name for name, holds in claims(bad).items() if not holds}

    reading = ("costs", "blueprint_reviews_only_ip_high", "model_saves_interval", "low")
    assert broken("trained", "leaks", value=["leak"]) == {"no_leak_in_honest_data"}
    assert broken("test", "calibration_slope", "value", value=1.11) == {"calibration_slope"}
    assert broken("test", "baselines", 2, "average_precision_gain", "low", value=-0.001) == {
        "beats_every_baseline_surely"
    }
    assert broken("views", "labels", *reading, value=-1.0) == {
        "cheaper_than_the_blueprint_by_labels"
    }
    assert broken("views", "truth", *reading, value=-1.0) == {"cheaper_than_the_blueprint_in_truth"}
    assert broken("random_split", "refused", value=False) == {"random_split_refused"}
    assert broken("planted_leaks", 0, "found", value=False) == {"planted_leaks_found"}


def test_costs_by_hand() -> None:
    """An abuser's 1,000 and an honest customer's 2,000: review both, or pay both."""
    ways = {"model": np.array([2, 2]), "paying_all": np.array([0, 0]), "denying": np.array([3, 3])}
    found = costs_of(examples([1.0, 0.0], [1000.0, 2000.0]), ways, COSTS)
    assert found["model"]["cost_per_1000_minor"] == 400_000
    assert found["paying_all"]["cost_per_1000_minor"] == 1000 * 1500 / 2
    assert found["denying"]["cost_per_1000_minor"] == 1000 * 1.5 * 2000 / 2
    assert found["paying_all"]["model_saves"] == 350_000
    assert found["model"]["share_of_abuse_held"] == 1
    assert found["paying_all"]["share_of_abuse_held"] == 0
    assert found["paying_all"]["model_saves_interval"] == {"low": -400_000, "high": 1_100_000}


def test_what_labels_miss_by_hand() -> None:
    """Four labelled, one of whose two abuses is missed; of two without a label one is abuse."""
    truth = examples([1, 1, 0, 0, 1, 0], [1.0] * 6)
    labelled = truth.where(slice(0, 4))
    said = replace(labelled, abuse=np.array([1.0, 0.0, 0.0, 1.0]))
    found = labels_against_truth({"labels": said, "truth_of_labelled": labelled, "truth": truth})
    assert found == {
        "without_label_share": pytest.approx(1 / 3),
        "abuse_share": 0.5,
        "abuse_share_of_labelled": 0.5,
        "abuse_share_of_unlabelled": 0.5,
        "abuse_share_as_labelled": 0.5,
        "abuse_labelled_clean_share": 0.5,
        "honest_labelled_abuse_share": 0.5,
    }


def test_kinds_by_hand() -> None:
    mode = np.array(["thief", None, "thief", "swapper"], object)
    found = kinds(mode, np.array([0.2, 0.9, 0.4, 0.1]), np.array([2, 2, 0, 0]))
    assert found == {
        "swapper": {"refunds": 1, "held_share": 0.0, "probability_p50": 0.1},
        "thief": {"refunds": 2, "held_share": 0.5, "probability_p50": pytest.approx(0.3)},
    }
