"""The report on a period: its figures against sums made one by one, and what it cannot know."""

from __future__ import annotations

import html
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pytest
from playwright.sync_api import Browser

from benchmarks import postgresql
from features.catalog import MODEL_FEATURES
from features.money import DAY_MS
from rules.decision import Action
from rules.document import Costs
from serving.codes import name_of_code
from serving.language import Language
from serving.psi import BINS
from serving.reasons import Ranking
from serving.store.decisions import Decision
from serving.store.reviews import Review
from serving.store.store import Store
from tests.training.period_logs import MOVING, NAMES, NOW, PAYABLE, Log
from training import period_read
from training.period import Driver, PeriodReport, announce_drift, period_report
from training.period_labels import LEAST_COSTED
from training.period_page import page
from training.period_read import Dictionary, read
from training.period_text import mover

SECRET = b"a secret of 16 bytes or more"
COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)
SINCE, UNTIL = NOW - 30 * DAY_MS, NOW
BEFORE = SINCE - 30 * DAY_MS
DAYS = 20
"""After which a label is mature."""


def opened(folder: Path) -> Store:
    return Store.open(f"sqlite:///{folder}/log.db", SECRET, clock="event")


def reported(store: Store, since: int = SINCE, until: int = UNTIL, **how: Any) -> PeriodReport:
    return period_report(store, since=since, until=until, costs=COSTS, base_currency="GBP",
                         maturity_days=DAYS, rounds=60, **how)  # fmt: skip


def written(store: Store) -> Log:
    """Two periods, the later of them with a feature that moved, some refunds sent again."""
    log = Log(store)
    with log.writing():
        before = log.decide(300, BEFORE, SINCE)
        now = log.decide(320, SINCE, UNTIL, shift=4.0, reasons=["MY_RULE"])
        log.decide(8, SINCE, UNTIL, model=None)
        for refund_id in now[:12]:
            log.write(refund_id, "c1", UNTIL - 5, action="MANUAL_REVIEW", probability=0.3)
        log.write(now[20], "c1", UNTIL - 4, action="ALLOW", source="MANUAL_REVIEW")
    with log.writing():
        log.look_into([*before, *now])
        log.said(UNTIL + 3 * DAY_MS, "UNREVIEWED", refund_id=now[0])
    return log


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = opened(tmp_path_factory.mktemp("period"))
    written(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def report(store: Store) -> PeriodReport:
    return reported(store)


def last_of(store: Store, since: int, until: int) -> list[Decision]:
    """The decision that counts of each refund, found one by one."""
    kept: dict[str, Decision] = {}
    for one in store.decisions(since, until):
        by_analyst = one.record["decision"]["source"] == "MANUAL_REVIEW"
        if one.refund_id not in kept or not by_analyst:
            kept[one.refund_id] = one
    return [*kept.values()]


def payable(one: Decision) -> float:
    return float(one.record["features"]["payable_minor"])


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["now", "before"])
def test_volumes_are_sums_over_refunds(store: Store, report: PeriodReport, which: str) -> None:
    volume = getattr(report, which)
    rows = last_of(store, volume.since, volume.until)
    assert volume.decisions == sum(1 for _ in store.decisions(volume.since, volume.until))
    assert volume.refunds == len(rows)
    for action in (Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT):
        of = [one for one in rows if one.record["decision"]["action"] == action]
        assert volume.whole.part(action).refunds == len(of)
        assert volume.whole.part(action).minor == sum(map(payable, of))
    expected = sum(one.record["probability"] * payable(one) for one in rows
                   if one.record["decision"]["action"] == "ALLOW")  # fmt: skip
    assert volume.expected_lost_minor == pytest.approx(expected)
    for kind, path in (("sources", ("decision", "source")), ("channels", ("facts", "channel"))):
        told = Counter(one.record[path[0]][path[1]] for one in rows)
        assert {one.name: one.whole.refunds for one in getattr(volume, kind)} == told
    assert volume.degraded == (8 if which == "now" else 0)


def test_slices_add_up(report: PeriodReport) -> None:
    assert report.slice_days == 1 and len(report.slices) == 60
    later = [one for one in report.slices if one.since >= SINCE]
    assert sum(one.refunds for one in later) == report.now.refunds
    assert sum(one.actions.get(Action.PREVENT, 0) for one in later) == (
        report.now.whole.part(Action.PREVENT).refunds
    )


def test_drivers_are_means_of_what_reasons_add_up(store: Store, report: PeriodReport) -> None:
    ranking = Ranking(MODEL_FEATURES)
    means = []
    for since, until in ((BEFORE, SINCE), (SINCE, UNTIL)):
        sums: dict[str, list[float]] = defaultdict(list)
        rows = [one.record for one in last_of(store, since, until)
                if one.record["contributions"]]  # fmt: skip
        for record in rows:
            row = np.array([math.nan if v is None else v for v in record["features"].values()])
            each: dict[str, float] = defaultdict(float)
            adds = [*record["contributions"].values()][:-1]
            for code, weight in zip(ranking.grouped(row), adds, strict=True):
                each[ranking.codes[code]] += weight
            for code in ranking.codes:
                sums[code].append(each[code])
        means.append(sums)
    for one in report.drivers:
        assert one.mean_before == pytest.approx(np.mean(means[0][one.code]), abs=1e-6)
        assert one.mean == pytest.approx(np.mean(means[1][one.code]), abs=1e-6)
        assert one.size == pytest.approx(np.abs(means[1][one.code]).mean(), abs=1e-6)
    assert {one.code for one in report.drivers} == {c for c in ranking.codes if any(means[1][c])}
    assert [one.size for one in report.drivers] == sorted(d.size for d in report.drivers)[::-1]


def test_changes_by_chance_are_seldom_sure(report: PeriodReport) -> None:
    assert sum(one.sure for one in report.drivers) <= 3, "of fifty, all drawn alike"


def test_reasons_count_refunds_and_money(store: Store, report: PeriodReport) -> None:
    told: dict[tuple[str, str], list[Decision]] = defaultdict(list)
    for one in last_of(store, SINCE, UNTIL):
        for reason in one.record["reasons"]:
            told["model", reason["code"]].append(one)
        for code in one.record["decision"]["reasons"]:
            told["rule", code].append(one)
    assert {(one.by, one.code) for one in report.told} == set(told)
    for one in report.told:
        rows = told[one.by, one.code]
        assert (one.now.whole.refunds, one.now.whole.minor) == (len(rows), sum(map(payable, rows)))
        held = [row for row in rows if row.record["decision"]["action"] == "MANUAL_REVIEW"]
        assert one.now.part(Action.MANUAL_REVIEW).refunds == len(held)


def test_the_feature_that_moved_is_found_and_the_others_are_not(
    store: Store, report: PeriodReport
) -> None:
    drift = report.drift
    assert [one.drift.name for one in drift.features if one.surely] == [NAMES[MOVING]]
    first = drift.features[0]
    values = []
    for since, until in ((BEFORE, SINCE), (SINCE, UNTIL)):
        rows = [one.record for one in last_of(store, since, until) if one.record["contributions"]]
        values.append([record["features"][NAMES[MOVING]] for record in rows])
    known = sorted(v for v in values[0] if v is not None)
    edges = np.array([known[-(-i * len(known) // BINS) - 1] for i in range(1, BINS)])
    moved = 0.0
    counts = [Counter(-1 if v is None else int((v >= edges).sum()) for v in each)
              for each in values]  # fmt: skip
    bins = set(counts[0]) | set(counts[1])
    for place in bins:
        p, q = ((count[place] + 0.5) / (count.total() + 0.5 * len(bins)) for count in counts)
        moved += (q - p) * math.log(q / p)
    assert first.drift.psi == pytest.approx(moved, rel=1e-6)
    assert drift.score is not None and not drift.score.surely
    looks = sum(one.share or 0 for one in drift.features)
    assert looks == pytest.approx(1)


def test_calibration_is_over_mature_labels(store: Store, report: PeriodReport) -> None:
    found = report.calibration
    paid, words = set(), {}
    for event in store.events():
        if event.event_type == "refund_outcome":
            paid.add(event.payload["refund_id"])
        elif event.event_type == "label":
            words[event.payload["refund_id"]] = event.payload["label"]
    months: dict[str, list[tuple[float, float]]] = defaultdict(list)
    young = 0
    decided = {one.refund_id: one for one in last_of(store, BEFORE, SINCE)}
    decided |= {one.refund_id: one for one in last_of(store, SINCE, UNTIL)}
    first = {e.payload["refund_id"]: e.known_at for e in reversed([*store.events()])
             if e.event_type == "refund_request"}  # fmt: skip
    for refund_id, one in decided.items():
        month = str(np.datetime64(one.decided_at, "ms").astype("datetime64[M]"))
        said = words.get(refund_id)
        if first[refund_id] + DAYS * DAY_MS > found.as_of:
            young += 1
        elif said in ("REFUND_ABUSE", "NOT_REFUND_ABUSE") or refund_id in paid:
            p = one.record["probability"]
            months[month].append((p, float(said == "REFUND_ABUSE")))
    assert sum(one.immature for one in found.months) == young > 0
    for one in found.months:
        of = months[one.month]
        assert one.labelled == len(of)
        if of:
            assert one.fit.predicted == pytest.approx(np.mean([p for p, _ in of]))
            assert one.fit.observed == pytest.approx(np.mean([abuse for _, abuse in of]))
    assert found.whole.refunds == sum(map(len, months.values()))
    assert found.weighted is not None, "some were paid to learn from"


def test_what_a_thousand_cost_is_not_told_of_a_few(report: PeriodReport) -> None:
    months = [one for one in report.calibration.months if one.labelled]
    assert {one.costed >= LEAST_COSTED for one in months} == {True, False}, "of both kinds"
    table = page(report).split("What mistakes cost")[-1].split("</table>")[0]
    for one in months:
        row = table.split(one.month)[1].split("</tr>")[0]
        assert f">{one.labelled}<" in row
        is_told = one.costed >= LEAST_COSTED
        assert is_told is math.isfinite(one.cost_per_1000_minor) is ("GBP" in row.split("<td")[-1])
        assert ("too few labels" in row) is not is_told


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (0.02, 0.04, "raises the risk more"),
        (0.04, 0.02, "raises the risk less"),
        (0.04, 0.0, "raises the risk less"),
        (-0.02, -0.04, "lowers the risk more"),
        (-0.08, -0.02, "lowers the risk less"),
        (0.0, -0.02, "lowers the risk more"),
        (0.02, -0.04, "lowers the risk now, raised it before"),
        (-0.02, 0.04, "raises the risk now, lowered it before"),
    ],
)
def test_a_driver_is_told_by_both_its_means(before: float, now: float, said: str) -> None:
    one = Driver("NO_HISTORY", before, now, abs(before), abs(now), sure=True)
    values = f"{Language().signed(now, 3)}, before {Language().signed(before, 3)}"
    assert mover(one, Language()) == f"{name_of_code('NO_HISTORY', Language())}: {values}: {said}"


def test_reviews_are_of_refunds_held(store: Store, report: PeriodReport) -> None:
    held = [one for one in last_of(store, SINCE, UNTIL)
            if one.record["decision"]["action"] == "MANUAL_REVIEW"]  # fmt: skip
    words = defaultdict(list)
    for event in store.events():
        if event.event_type == "label":
            words[event.payload["refund_id"]].append((event.known_at, event.payload["label"]))
    said = {}
    for one in held:
        after = sorted(word for word in words[one.refund_id] if word[0] >= one.decided_at)
        if after and after[-1][1] != "UNREVIEWED":
            said[one.refund_id] = after[-1][1] == "REFUND_ABUSE"
    found = report.reviews
    assert (found.held, found.whole.reviewed, found.whole.confirmed) == (
        len(held), len(said), sum(said.values())
    )  # fmt: skip
    assert found.open + found.moved_on + len(said) == len(held)
    assert found.open and found.oldest_open_at is not None
    assert sum(one.reviewed for one in found.sources) == len(said)
    assert found.hours_median == pytest.approx(48)


def test_a_word_on_a_customer_is_one_on_the_refunds_before_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    log = Log(store)
    log.write("early", "c1", SINCE + 1, action="MANUAL_REVIEW")
    log.write("late", "c1", UNTIL - DAY_MS, action="MANUAL_REVIEW")
    log.write("other", "c2", UNTIL - DAY_MS, action="MANUAL_REVIEW")
    log.said(UNTIL - 9, "REFUND_ABUSE", customer_id="c1")
    found = reported(store).reviews
    assert (found.whole.reviewed, found.whole.confirmed, found.open) == (1, 1, 2)
    log.said(UNTIL - 8, "NOT_REFUND_ABUSE", refund_id="late")
    log.said(UNTIL - 7, "REFUND_ABUSE", "CHARGEBACK", refund_id="other")
    found = reported(store).reviews
    assert (found.whole.reviewed, found.whole.confirmed, found.open) == (1, 0, 2)
    store.close()


def test_money_is_summed_refund_by_refund(store: Store, report: PeriodReport) -> None:
    paid = {e.payload["refund_id"] for e in store.events() if e.event_type == "refund_outcome"}
    for volume in (report.now, report.before):
        rows = last_of(store, volume.since, volume.until)
        sums: dict[str, float] = defaultdict(float)
        for one in rows:
            action, p, minor = (one.record["decision"]["action"], one.record["probability"],
                                payable(one))  # fmt: skip
            sums["asked_minor"] += minor
            sums["paid_minor"] += minor * (one.refund_id in paid)
            if action == "ALLOW":
                sums["allowed_minor"] += minor
                sums["lost_minor"] += (p or 0) * minor
            elif action == "PREVENT":
                sums["prevented_minor"] += minor
                sums["loss_prevented_minor"] += p * minor
                sums["honest_minor"] += (1 - p) * 1.5 * minor
            else:
                sums["held_minor"] += minor
                sums["review_minor"] += 400
        told = volume.money.to_json()
        assert told.pop("unscored") == 0 and sums["paid_minor"] and sums["lost_minor"]
        assert told == pytest.approx({**dict.fromkeys(told, 0.0), **sums})
        parts = [one.money.to_json() for one in report.slices
                 if volume.since <= one.since < volume.until]  # fmt: skip
        assert {name: sum(part[name] for part in parts) for name in told} == pytest.approx(told)
    later = [one for one in report.slices if one.since >= SINCE]
    assert sum(one.fallback for one in later) == sum(one.degraded for one in later) == 8


def test_what_was_prevented_without_a_probability_is_said(tmp_path: Path) -> None:
    store = opened(tmp_path)
    log = Log(store)
    log.write("r", "c", SINCE, action="PREVENT", source="RULE", probability=None)
    log.write("s", "c", SINCE + 1, action="PREVENT", probability=0.5)
    found = reported(store)
    assert found.now.money.unscored == 1
    half = payable(last_of(store, SINCE, UNTIL)[1]) / 2
    assert found.now.money.loss_prevented_minor == pytest.approx(half)
    assert found.now.money.honest_minor == pytest.approx(1.5 * half)
    assert "1 refund was prevented without a probability" in check(found)
    store.close()


HOSTILE = "<script>alert(1)</script>"


def test_rules_count_hits_answers_and_labels(tmp_path: Path) -> None:
    store = opened(tmp_path)
    log = Log(store)
    for number, (action, hits) in enumerate([
        ("MANUAL_REVIEW", ["a", HOSTILE]), ("MANUAL_REVIEW", ["a"]), ("MANUAL_REVIEW", ["a"]),
        ("PREVENT", ["a"]), ("ALLOW", ["+dark"]), ("MANUAL_REVIEW", []),
    ]):  # fmt: skip
        log.write(f"r{number}", f"c{number}", SINCE + number, action=action, hits=hits)
    log.write("r0", "c0", SINCE + 9, action="MANUAL_REVIEW", hits=["a"])  # once: the last stands
    log.write("old", "c9", SINCE - DAYS * DAY_MS, action="MANUAL_REVIEW", hits=["a"])
    with store.database.write() as connection:
        for number, ending in (("r0", "approved"), ("r1", "denied"), ("r3", "approved")):
            store.reviews.open(connection, Review(
                number, number, "c", None, "GBP", 5, 5, 5, 1, 0.2, -1, SINCE, UNTIL,
                status="DONE", closed_at=SINCE + 99, ending=ending, closed_by="ann"))  # fmt: skip
    log.said(UNTIL - 9, "REFUND_ABUSE", refund_id="old")
    log.said(UNTIL - 9, "NOT_REFUND_ABUSE", refund_id="r2")
    log.write("end", "c8", UNTIL + 2 * DAYS * DAY_MS, action="ALLOW")
    found = reported(store)
    used = {one.rule_id: one for one in found.rules}
    assert [one.rule_id for one in found.rules] == ["a", "dark"], "of r0 the last decision counts"
    a = used["a"]
    assert (a.hits, a.before, a.called, a.answered, a.approved) == (4, 1, 3, 2, 1)
    assert (a.labelled, a.precision.value, a.overturned) == (2, 0.5, 0.5)
    assert (used["dark"].mode, used["dark"].called) == ("shadow", 0)
    log.write("bad", "c7", SINCE + 10, action="ALLOW", hits=[HOSTILE])
    said = check(reported(store))
    assert HOSTILE not in said and "&lt;script&gt;" in said
    store.close()


def test_ranking_has_an_interval_where_labels_are_of_both_kinds(report: PeriodReport) -> None:
    ranked = report.calibration.ranked
    assert ranked is not None and ranked.refunds == report.calibration.whole.refunds
    assert ranked.interval.low < ranked.average_precision < ranked.interval.high
    assert ranked.prevalence == pytest.approx(report.calibration.whole.observed)


# --- what it cannot know -------------------------------------------------------------------------


def check(report: PeriodReport) -> str:
    """The report is told in every form; what its page says."""
    json.dumps(report.to_json(), allow_nan=False)
    assert report.to_text()
    return page(report)


def test_an_empty_store_has_nothing_to_tell(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(LookupError, match="no decision"):
        reported(store)
    Log(store).write("r", "c", SINCE - 90 * DAY_MS, action="ALLOW")
    found = reported(store)
    assert found.now.refunds == found.before.refunds == 0
    assert "No refund was decided in this period." in check(found)
    with pytest.raises(ValueError, match="after since"):
        reported(store, since=UNTIL)
    store.close()


def test_one_decision(tmp_path: Path) -> None:
    store = opened(tmp_path)
    Log(store).write("r", "c", SINCE, action="PREVENT")
    found = reported(store)
    assert found.now.whole.share(Action.PREVENT) == 1
    assert found.drift.problem == "not_scored" and not found.drift.surely
    assert not found.calibration.whole.refunds
    assert "1 refund was decided; none in the 30 days before." in check(found)
    assert not announce_drift(store, found, UNTIL)
    store.close()


def test_another_model_and_another_catalog_in_between(tmp_path: Path) -> None:
    store = opened(tmp_path)
    log = Log(store)
    with log.writing():
        log.decide(160, BEFORE, SINCE, model="1")
        log.decide(160, SINCE, UNTIL, model="2")
        log.decide(160, UNTIL, UNTIL + 30 * DAY_MS, model="3", catalog="c2", names=NAMES[:150])
    found = reported(store)
    assert found.model_changed and found.drift.problem is None
    assert (found.drift.score, found.drift.score_problem) == (None, "other_model")
    assert "Not one model scored both periods" in check(found)
    later = reported(store, since=UNTIL, until=UNTIL + 30 * DAY_MS)
    assert later.drift.problem == "other_catalog"
    assert "another model or program counted them" in check(later)
    store.close()


def test_without_labels_and_without_a_model(tmp_path: Path) -> None:
    store = opened(tmp_path)
    Log(store).decide(30, BEFORE, UNTIL, model=None)
    found = reported(store)
    assert found.now.degraded == found.now.refunds == 15
    assert not found.drivers and found.drift.problem == "not_scored"
    assert found.calibration.figures == {}
    text = check(found)
    assert "100.0 % of the refunds were decided without the model." in text
    assert "No refund of either period was scored by a model." in text
    store.close()


def test_words_of_others_are_inert(tmp_path: Path) -> None:
    store = opened(tmp_path)
    hostile = '<script>alert(1)</script>{{ 7*7 }}{x} $\\alpha$ \u202e"><img src=x onerror=alert(1)>'
    log = Log(store)
    log.decide(40, SINCE, UNTIL, channels=(hostile, "WEB"), reasons=[hostile], model=hostile)
    log.write("listed", "c", SINCE, action="PREVENT", list_reasons=["said of Ann by name"])
    found = reported(store)
    told = check(found)
    assert "<script" not in told and "<img" not in told and "{{ 7*7 }}" in told
    assert "said of Ann by name" not in told + json.dumps(found.to_json())
    assert ("list", "LISTED") in {(one.by, one.code) for one in found.told}
    store.close()


class Wrapped(dict[str, tuple[str, ...]]):
    """A translation that puts every text between marks."""

    def get(self, text: str, other: Any = None) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"⟦{one}⟧" for one in other or (text,))

    def __contains__(self, text: object) -> bool:
        return True


def test_every_text_is_in_the_catalogue(report: PeriodReport) -> None:
    marked = Language("en", Wrapped(any=("text",)))
    shown = re.sub(r"<(style|code)\b.*?</\1>", " ", page(report, marked), flags=re.DOTALL)
    said = [*re.findall(r'aria-label="([^"]*)"', shown), re.sub(r"<[^>]*>", " ", shown)]
    left = html.unescape("\n".join([*said, report.to_text(marked)]))
    while (less := re.sub(r"⟦[^⟦⟧]*⟧", " ", left)) != left:
        left = less
    data = {"GBP", "Mar", "Apr", "May", "APP", "WEB", "rule"}
    assert set(re.findall(r"[^\W\d_]{3,}", left)) <= data


def test_the_page_fits_a_phone_and_runs_nothing(tmp_path: Path, browser: Browser) -> None:
    store = opened(tmp_path)
    with (log := Log(store)).writing():
        log.decide(300, BEFORE, UNTIL, shift=2.0, channels=("W" * 300, "<img src=x onerror=a()>"))
    (tmp_path / "page.html").write_text(page(reported(store)), encoding="utf-8")
    opened_page = browser.new_page(viewport={"width": 390, "height": 800})
    problems: list[str] = []
    opened_page.on("pageerror", lambda error: problems.append(str(error)))
    opened_page.goto((tmp_path / "page.html").as_uri())
    assert opened_page.evaluate("document.documentElement.scrollWidth") == 390
    assert opened_page.locator("img, script").count() == 0
    assert opened_page.locator("svg").count() >= 3
    assert not problems
    store.close()


# --- how it is read ------------------------------------------------------------------------------


def test_a_sample_is_spread_evenly_and_all_else_is_whole(
    store: Store, report: PeriodReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(period_read, "MOST_SAMPLED", 100)
    monkeypatch.setattr(period_read, "_CHUNK", 7)
    found = reported(store)
    assert found.drift.after < 100 < report.drift.after
    assert found.now == report.now and found.drivers == report.drivers
    assert found.reviews.to_json() == report.reviews.to_json() and found.told == report.told


def test_amounts_are_those_of_the_rows(store: Store) -> None:
    of = read(store, SINCE, UNTIL, Dictionary())
    [sample] = of.samples.values()
    assert sample.values[:, PAYABLE].tolist() == of.table["payable_minor"][sample.row].tolist()
    assert len(of) == 328


def test_long_periods_are_counted_by_week(store: Store) -> None:
    found = reported(store, since=BEFORE)
    assert found.slice_days == 7 and len(found.slices) == 18
    assert sum(one.refunds for one in found.slices[9:]) == found.now.refunds
    check(found)


def test_drift_is_announced_in_the_outbox(store: Store, report: PeriodReport) -> None:
    assert not [one for one in report.drift.surely if one.code is None]
    with store.database.write() as connection:
        endpoint, _ = store.outbox.add(connection, "https://shop.example/", ["drift.detected"], 1)
    assert announce_drift(store, report, UNTIL)
    with store.database.read() as connection:
        [told] = store.outbox.due(connection, endpoint.id, UNTIL, 9)
    data = orjson.loads(told.payload)["data"]
    first = report.drift.features[0].drift
    assert data == {
        "since": SINCE, "until": UNTIL, "beforeSince": BEFORE, "score": None,
        "features": [{"name": first.name, "psi": round(first.psi, 6),
                      "threshold": round(first.threshold, 6)}],
    }  # fmt: skip


def test_postgresql_tells_the_same(report: PeriodReport) -> None:
    # Not under pytest's own folder: a second run of tests bars the server's user from that.
    with (
        TemporaryDirectory(prefix="recourse-") as folder,
        postgresql.running(Path(folder)) as server,
    ):
        server.forget_power_cuts()
        other = Store.open(server(), SECRET, clock="event")
        written(other)
        assert reported(other).to_json() == report.to_json()
        other.close()
