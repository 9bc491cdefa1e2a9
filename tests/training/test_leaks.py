"""The leak detector: each kind planted and found under its suspect's name; honest data clean."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import training.leaks
from benchmarks.plants import (
    answers,
    at_random,
    both_parts,
    known_soon,
    looking_ahead,
    risk_written_afterwards,
    with_column,
)
from features.money import DAY_MS, Rates
from features.tables import Tables, canonical_table
from tests.training.tables import simulated
from training.dataset import (
    Examples,
    FeatureFrame,
    TimeSplit,
    TooLittleData,
    feature_frame,
    rates_of,
    training_frame,
)
from training.leaks import (
    LeakReport,
    find_leaks,
    interleaved,
    separates_alone,
    shared_refunds,
)

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def rates(tables: Tables) -> Rates:
    return rates_of(tables)


@pytest.fixture(scope="module")
def clean(split: TimeSplit, tables: Tables, rates: Rates) -> LeakReport:
    return find_leaks(split, tables, rates)


def kinds(report: LeakReport) -> set[tuple[str, str]]:
    return {(leak.kind, leak.suspect) for leak in report.leaks}


# --- honest data ---------------------------------------------------------------------------------


def test_an_honest_folder_has_no_leak_and_every_check_says_what_it_saw(clean: LeakReport) -> None:
    assert clean.leaks == clean.trusted == clean.reasons == ()
    looked_for = [check.looked_for for check in clean.checks]
    assert looked_for == [
        "separates_alone", "collapses_with_the_gap", "collapses_with_the_gap", "shared_refunds",
        "interleaved", "future_facts",
    ]  # fmt: skip
    alone, labels, disputes, shared, order, future = (check.figures for check in clean.checks)
    assert alone["prevalence"] < alone["most_ap"] < 0.8 * alone["whole_model_ap"]
    assert labels["verdicts"] > 0 and disputes["verdicts"] > 0
    assert 1 < labels["delay_days_p50"] < disputes["delay_days_p50"]
    assert shared["in_both"] == shared["twice_in_one"] == shared["copies_in_test_share"] == 0
    assert order["later_pairs"] == 0 and order["gap_days"] >= 60
    assert future["rows_compared"] > 10_000 and future["features_that_differ"] == 0


def test_another_honest_folder_has_none_either() -> None:
    tables = simulated(customers=2000, days=400, seed=21)
    rates = rates_of(tables)
    assert find_leaks(training_frame(tables, rates), tables, rates).reasons == ()


def test_the_report_is_plain_values(clean: LeakReport) -> None:
    document = json.loads(json.dumps(clean.to_json(), allow_nan=False))
    assert document["leaks"] == []
    assert document["checks"][0]["figures"]["features"] > 100


# --- 1: a feature that separates alone -----------------------------------------------------------


def risk_known_of_the_accused(tables: Tables) -> Tables:
    """A column that is filled in only when somebody investigates, for two of three who did it."""
    row, abuse = answers(tables)
    asked = abuse & (np.random.default_rng(1).random(len(row)) < 0.66)
    values = np.full(len(tables["refund_requests"]), np.nan)
    values[row[asked]] = np.random.default_rng(2).random(int(asked.sum()))
    return with_column(tables, "ip_risk", values)


def code_of_the_outcome(tables: Tables) -> Tables:
    """Requests booked again under another policy once they turned out to be abuse."""
    row, abuse = answers(tables)
    values = tables["refund_requests"]["policy"].to_numpy(zero_copy_only=False).astype(object)
    known = sorted({value for value in values if value is not None})
    values[values == known[1]] = known[0]
    values[row[abuse]] = known[1]
    return with_column(tables, "policy", values)


@pytest.mark.parametrize(
    ("plant", "suspect", "says"),
    [
        (risk_written_afterwards, "ip_risk", "ip_risk alone reaches AP"),
        (risk_known_of_the_accused, "ip_risk", "whether ip_risk is known alone reaches AP"),
        (code_of_the_outcome, "policy", "policy alone reaches AP 1.00 (AUC 1.000)"),
    ],
)
def test_a_feature_that_separates_alone_is_named(
    tables: Tables, rates: Rates, plant: Callable[[Tables], Tables], suspect: str, says: str
) -> None:
    (leak,) = separates_alone(training_frame(plant(tables), rates)).leaks
    assert (leak.kind, leak.suspect) == ("separates_alone", suspect)
    assert leak.says.startswith(f"leak: {says}")
    assert leak.says.endswith(f"say so with --trust {suspect}")
    assert leak.evidence["ap_alone"] > leak.evidence["next_feature_ap"] + 0.2


def test_two_that_say_the_same_do_not_hide_one_another(split: TimeSplit) -> None:
    leaking = {name: split.train.features[name].copy() for name in ("ip_risk", "country_mismatch")}
    for part in (split.train, split.test):
        for values in leaking.values():
            values[part.row] = part.abuse
    features = {**split.train.features, **leaking}
    both = replace(split, train=replace(split.train, features=features),
                   test=replace(split.test, features=features))  # fmt: skip
    assert {leak.suspect for leak in separates_alone(both).leaks} == leaking.keys()


def test_what_is_trusted_hides_no_other(split: TimeSplit) -> None:
    """Beside a perfect feature one that is merely far too good looks weak, and is named still."""
    answer, hint = (split.train.features[name].copy() for name in ("ip_risk", "country_mismatch"))
    draw = np.random.default_rng(4)
    for part in (split.train, split.test):
        answer[part.row] = part.abuse
        hint[part.row] = part.abuse + draw.normal(0, 0.39, len(part))
    features = {**split.train.features, "ip_risk": answer, "country_mismatch": hint}
    both = replace(split, train=replace(split.train, features=features),
                   test=replace(split.test, features=features))  # fmt: skip
    assert "ip_risk" in [leak.suspect for leak in separates_alone(both).leaks]
    found = separates_alone(both, trusted=["ip_risk"]).leaks
    assert {leak.suspect for leak in found} == {"ip_risk", "country_mismatch"}


def test_a_trusted_feature_is_told_but_stops_nothing(tables: Tables, rates: Rates) -> None:
    planted = code_of_the_outcome(tables)
    report = find_leaks(training_frame(planted, rates), planted, rates, trusted=["policy"])
    assert report.leaks == ()
    assert [leak.suspect for leak in report.trusted] == ["policy"]


def test_trust_names_what_there_is(split: TimeSplit, tables: Tables, rates: Rates) -> None:
    with pytest.raises(ValueError, match="'ip_rsk', did you mean ip_risk\\?"):
        find_leaks(split, tables, rates, trusted=["ip_rsk"])


# --- 2: a score that collapses when the label gap widens -----------------------------------------


@pytest.mark.parametrize(("table", "trusted"), [("labels", ()), ("disputes", ("disputes",))])
def test_verdicts_known_too_soon_are_named_unless_trusted(
    tables: Tables, rates: Rates, table: str, trusted: tuple[str, ...]
) -> None:
    planted = known_soon(tables, table)
    report = find_leaks(training_frame(planted, rates), planted, rates, trusted=trusted)
    (leak,) = (*report.leaks, *report.trusted)
    assert (leak.kind, leak.suspect) == ("collapses_with_the_gap", table)
    assert [leak.suspect for leak in report.trusted] == list(trusted)
    assert leak.evidence["loss"] > 0.35 and leak.evidence["least_loss_of_ap"] > 0
    assert leak.evidence["ap_as_is"] > 1.5 * leak.evidence["ap_held_back"]
    assert leak.says.startswith(f"leak: {table} are known too soon (")
    assert "half of all within 5.0 minutes of what they are about" in leak.says
    assert leak.says.endswith(f"--trust {table}")


def test_verdicts_a_week_after_each_refund_are_no_leak(tables: Tables, rates: Rates) -> None:
    """As exact, and as regular, as in the plant: what matters is that they took their time."""
    soon = known_soon(tables, "labels")["labels"]
    place = soon.schema.get_field_index("known_at")
    later = pa.array(soon["known_at"].to_numpy() + 7 * DAY_MS)
    week = {
        **tables,
        "labels": canonical_table("labels", soon.set_column(place, "known_at", later)),
    }
    report = find_leaks(training_frame(week, rates), week, rates)
    assert report.reasons == ()
    assert 6.9 < report.checks[1].figures["delay_days_p50"] < 7.1


# --- 3: training and test that share refunds, or their time --------------------------------------


def test_a_random_split_is_refused_and_the_reason_says_how_mixed_it_is(
    split: TimeSplit, tables: Tables, rates: Rates
) -> None:
    report = find_leaks(at_random(split, seed=3), tables, rates)
    assert kinds(report) == {("interleaved", "the split")}
    (leak,) = report.leaks
    assert 0.45 < leak.evidence["later_pairs"] < 0.55
    assert "mixed in time" in leak.says
    assert f"{leak.evidence['later_pairs']:.1%} of pairs" in leak.says


def test_training_within_the_label_gap_is_refused(split: TimeSplit) -> None:
    close = replace(split, test_from=split.test_from - 20 * DAY_MS)
    (leak,) = interleaved(close).leaks
    assert "days before the test began" in leak.says
    assert 0 < leak.evidence["train_within_label_gap"] < 0.5
    assert not interleaved(split).leaks


def test_refunds_in_both_parts_and_twice_in_one_are_counted(split: TimeSplit) -> None:
    whole = both_parts(split)
    shared = np.arange(len(split.train) - 7, len(whole))
    (leak,) = shared_refunds(replace(split, test=whole.where(shared))).leaks
    assert leak.evidence["in_both"] == 7
    assert leak.says.startswith("leak: 7 refunds are in both training and test, among them r")
    assert leak.suspect.endswith("and 4 more")

    again = np.r_[0, np.arange(len(split.train))]
    (leak,) = shared_refunds(replace(split, train=split.train.where(again))).leaks
    assert leak.suspect == split.train.refund_id[0]
    assert leak.evidence["twice_in_one"] == 1


def test_copies_under_other_ids_are_found(split: TimeSplit) -> None:
    copied = split.train.where(np.arange(30))
    renamed = replace(copied, refund_id=np.array([f"copy-{n}" for n in range(30)], object))
    test = Examples.one_after_another([renamed, split.test])
    (leak,) = shared_refunds(replace(split, test=test)).leaks
    assert leak.suspect == "copies under other ids"
    assert leak.evidence["copies_in_test_share"] == pytest.approx(30 / len(test))


# --- 4: features computed from what came later ---------------------------------------------------


def scaled_by_all_that_ever_came(tables: Tables, rates: Rates) -> FeatureFrame:
    """Amounts divided by their mean in the whole folder: no row reads another, all read it."""
    frame = feature_frame(tables, rates)
    amount = frame.columns["payable_minor"]
    return replace(frame, columns={**frame.columns, "payable_minor": amount / np.nanmean(amount)})


def split_by(compute: Any, split: TimeSplit, tables: Tables, rates: Rates) -> TimeSplit:
    features = compute(tables, rates).columns
    return replace(split, train=replace(split.train, features=features),
                   test=replace(split.test, features=features))  # fmt: skip


def test_a_feature_that_reads_the_future_is_named(
    split: TimeSplit, tables: Tables, rates: Rates
) -> None:
    ahead = split_by(looking_ahead, split, tables, rates)
    name = "refund_count_by_customer_7d"
    report = find_leaks(ahead, tables, rates, compute=looking_ahead, trusted=[name])
    assert kinds(report) == {("future_facts", name)}  # trust does not settle what is proved
    (leak,) = report.leaks
    assert 0 < leak.evidence["rows_that_differ"] < 0.05 * leak.evidence["rows_compared"]
    assert 5 < leak.evidence["reads_days_ahead"] <= 7
    assert leak.says.startswith(f"leak: {name} differs in ")


def test_features_that_the_folder_does_not_give_are_named(
    split: TimeSplit, tables: Tables, rates: Rates
) -> None:
    scaled = split_by(scaled_by_all_that_ever_came, split, tables, rates)
    report = find_leaks(scaled, tables, rates, compute=scaled_by_all_that_ever_came)
    assert kinds(report) == {("future_facts", "payable_minor")}
    assert report.leaks[0].evidence["rows_that_differ"] > 10_000


# --- bounds --------------------------------------------------------------------------------------


def test_of_a_large_folder_a_part_is_looked_at_and_leaks_are_still_found(
    split: TimeSplit, tables: Tables, rates: Rates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.leaks, "MOST_REQUESTS", len(tables["refund_requests"]) // 2)
    monkeypatch.setattr(training.leaks, "MOST_ROWS", 1000)
    computed = []

    def counted(part: Tables, rates: Rates) -> FeatureFrame:
        computed.append(len(part["refund_requests"]))
        return looking_ahead(part, rates)

    ahead = split_by(looking_ahead, split, tables, rates)
    report = find_leaks(ahead, tables, rates, compute=counted)
    assert kinds(report) == {("future_facts", "refund_count_by_customer_7d")}
    assert max(computed) < 0.6 * len(tables["refund_requests"])
    planted = known_soon(tables, "labels")
    report = find_leaks(training_frame(planted, rates), planted, rates)
    assert ("collapses_with_the_gap", "labels") in kinds(report)


def test_the_same_seed_finds_the_same(
    clean: LeakReport, split: TimeSplit, tables: Tables, rates: Rates
) -> None:
    assert find_leaks(split, tables, rates).to_json() == clean.to_json()


def test_examples_of_one_class_are_refused(split: TimeSplit, tables: Tables, rates: Rates) -> None:
    honest = split.test.where(split.test.abuse == 0)
    with pytest.raises(TooLittleData, match="in the test, got 0 of abuse in"):
        find_leaks(replace(split, test=honest), tables, rates)
