"""Promotion: nothing replaces the champion unseen, a refusal says why, and there is a way back."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.tables import Tables
from rules.policy import Policy
from serving.home import Home
from serving.model import AbuseModel, Platt
from training.bootstrap import Interval
from training.gate import Bounds
from training.promote import PromotionRefused, promote, rollback
from training.registry import Registry
from training.report import TrainedReport
from training.train import TEST_ROWS, train


@pytest.fixture
def champion(
    report: TrainedReport, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AbuseModel:
    """The model of version 1, champion whatever the test before has done; MLflow looks away."""
    mlflow.set_tracking_uri(Home(tmp_path_factory.mktemp("elsewhere")).tracking_uri)
    Registry(Home(home)).crown([report.model_version])
    return AbuseModel.load(Home(home).served_model())


def registered(
    home: Path, model: AbuseModel, folder: Path, test_rows: pa.Table | None = None
) -> str:
    """A model as a new version, by a run that logged no more than test rows, if any."""
    registry = Registry(Home(home))
    model.save(folder / "model")
    logged = folder / "logged"
    logged.mkdir()
    if test_rows is not None:
        pq.write_table(test_rows, logged / TEST_ROWS)
    with registry.run():
        registry.log({}, {}, logged)
        return registry.register(model, folder / "model")


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_later_model_waits_until_it_is_shown_better(
    champion: AbuseModel, report: TrainedReport, home: Path, tables: Tables
) -> None:
    second = train(tables, home=home, seed=1)
    assert not second.champion
    assert Home(home).served_version() == report.model_version
    with pytest.raises(PromotionRefused, match="not surely better on") as refusal:
        promote(second.model_version, home=home)
    comparison = refusal.value.comparison
    assert comparison is not None
    assert comparison.refunds == report.n_test
    assert comparison.champion.average_precision == report.judgement.figures.average_precision
    assert comparison.challenger.brier == second.judgement.figures.brier
    assert comparison.latency is not None and comparison.latency.champion_ms > 0
    assert Home(home).served_version() == report.model_version


def test_a_better_model_replaces_a_poor_champion_and_can_be_rolled_back(
    champion: AbuseModel, report: TrainedReport, home: Path, tmp_path: Path
) -> None:
    blind = replace(champion, calibrator=Platt(slope=0.0, intercept=-3.0))
    poor = registered(home, blind, made(tmp_path / "poor"))
    Registry(Home(home)).crown([poor])
    promotion = promote(report.model_version, home=home)
    assert (promotion.version, promotion.replaced) == (report.model_version, poor)
    assert promotion.comparison is not None and promotion.comparison.gain.low > 0
    assert Home(home).served_version() == report.model_version
    assert Registry(Home(home)).champion() == report.model_version
    assert rollback(home=home).version == poor
    assert Home(home).served_version() == Registry(Home(home)).champion() == poor
    with pytest.raises(LookupError, match=f"champion {poor} replaced none"):
        rollback(home=home)


def test_only_rows_new_to_both_their_weights_and_groups_are_judged(
    champion: AbuseModel, report: TrainedReport, home: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(Registry(Home(home)).run_file(report.model_version, TEST_ROWS))
    n, middle = rows.num_rows, int(rows["known_at"][rows.num_rows // 2].as_py())
    group = pa.array([("GB", "FR")[i % 2] for i in range(n)])
    rows = rows.append_column("group.billing_country", group)
    rows = rows.append_column("weight", pa.array(np.full(n, 2.0)))
    manifest = replace(champion.manifest, test_from=middle)
    blind = replace(champion, calibrator=Platt(slope=0.0, intercept=-3.0), manifest=manifest)
    Registry(Home(home)).crown([registered(home, blind, made(tmp_path / "blind"))])
    version = registered(home, champion, made(tmp_path / "challenger"), rows)
    lenient = Bounds(fpr_ratio_at_least=0.0)
    comparison = promote(version, home=home, bounds=lenient).comparison
    assert comparison is not None
    assert comparison.refunds == (rows["known_at"].to_numpy() >= middle).sum() < n
    assert [one.column for one in comparison.fairness] == ["billing_country"] * 2
    assert {g.group for g in comparison.fairness[0].groups} == {"FR", "GB"}
    json.dumps(comparison.to_json(), allow_nan=False)


def test_a_handful_of_weighted_refunds_does_not_judge_for_all(
    champion: AbuseModel, report: TrainedReport, home: Path, tmp_path: Path
) -> None:
    """The state of every shop whose history is imported and whose first decisions are weeks old."""
    rows = pq.read_table(Registry(Home(home)).run_file(report.model_version, TEST_ROWS))
    blind = replace(champion, calibrator=Platt(slope=0.0, intercept=-3.0))
    for covered in (0, 20):
        Registry(Home(home)).crown([registered(home, blind, made(tmp_path / f"blind{covered}"))])
        weight = pa.array((np.arange(rows.num_rows) < covered).astype(float))
        version = registered(home, champion, made(tmp_path / f"challenger{covered}"),
                             rows.append_column("weight", weight))  # fmt: skip
        comparison = promote(version, home=home).comparison
        assert comparison is not None
        assert comparison.refunds == rows.num_rows
        assert any(f"only {covered} were decided" in note for note in comparison.notes)


def test_a_version_whose_run_has_lost_its_test_is_not_promoted(
    champion: AbuseModel, home: Path, tmp_path: Path
) -> None:
    version = registered(home, champion, made(tmp_path / "bare"))
    with pytest.raises(PromotionRefused, match=r"has no test.parquet any more: train again"):
        promote(version, home=home)
    assert Home(home).served_version() != version


def test_a_run_that_is_interrupted_leaves_no_version(
    champion: AbuseModel, home: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Registry(Home(home)).versions()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.page.write_page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tables, home=home, seed=2)
    assert Registry(Home(home)).versions() == before


def test_a_champion_that_can_serve_no_more_is_no_measure(
    champion: AbuseModel, home: Path, report: TrainedReport, tmp_path: Path
) -> None:
    """As after an upgrade that changed the catalog, or the files of a model."""
    registry = Registry(Home(home))
    assert registry.usable_champion() is not None
    for spoilt in ("other features", "another format"):
        manifest = champion.manifest
        if spoilt == "other features":
            manifest = replace(manifest, feature_names=("colour", *manifest.feature_names[1:]))
        old = registered(home, replace(champion, manifest=manifest), made(tmp_path / spoilt))
        if spoilt == "another format":
            file = registry.find(f"models:/refund-abuse/{old}") / "manifest.json"
            file.write_text(file.read_text().replace('"format": 2', '"format": 1'))
        registry.crown([old])
        assert registry.usable_champion() is None, spoilt
        promotion = promote(report.model_version, home=home)
        assert (promotion.replaced, promotion.comparison) == (old, None)


def test_an_empty_home_has_nothing_to_roll_back_to(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="nothing to roll back to"):
        rollback(home=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_the_policy_that_stands_prices_the_decisions(
    champion: AbuseModel, report: TrainedReport, home: Path, tmp_path: Path
) -> None:
    blind = replace(champion, calibrator=Platt(slope=0.0, intercept=-3.0))
    Registry(Home(home)).crown([registered(home, blind, made(tmp_path / "blind"))])
    pay_all = "{version: '1', bands: [], rules: [], costs: {fee_minor: 100}}"
    policy = Policy.from_yaml(pay_all, facts={})
    promotion = promote(report.model_version, home=home, policy=policy)
    assert promotion.comparison is not None
    assert promotion.comparison.saving == Interval(0, 0)  # whoever scores, all is paid


def test_another_currency_is_refused(champion: AbuseModel, home: Path, tmp_path: Path) -> None:
    other = replace(champion, manifest=replace(champion.manifest, base_currency="USD"))
    version = registered(home, other, made(tmp_path / "usd"))
    with pytest.raises(PromotionRefused, match=r"it reckons in USD, the champion .* in GBP"):
        promote(version, home=home)


def test_other_features_are_refused_by_name(
    champion: AbuseModel, home: Path, tmp_path: Path
) -> None:
    manifest = champion.manifest
    renamed = ("colour", *manifest.feature_names[1:])
    other = replace(champion, manifest=replace(manifest, feature_names=renamed))
    version = registered(home, other, made(tmp_path / "other"))
    missing = f"missing from the catalog: colour; extra in the catalog: {manifest.feature_names[0]}"
    with pytest.raises(PromotionRefused, match=missing):
        promote(version, home=home)


def test_a_champion_that_can_serve_no_more_is_no_obstacle(
    champion: AbuseModel, report: TrainedReport, home: Path, tmp_path: Path
) -> None:
    old = replace(champion, manifest=replace(champion.manifest, features_hash="old"))
    Registry(Home(home)).crown([registered(home, old, made(tmp_path / "old"))])
    assert promote(report.model_version, home=home).comparison is None
    with pytest.raises(PromotionRefused, match="other definitions"):
        rollback(home=home)


def test_what_is_not_there_or_champion_already_is_refused(
    champion: AbuseModel, report: TrainedReport, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(PromotionRefused, match="it is champion already"):
        promote(report.model_version, home=home)
    with pytest.raises(LookupError, match="has no version 99: expected one of 1"):
        promote("99", home=home)
    with pytest.raises(LookupError, match="train first"):
        promote(home=tmp_path)
    assert not list(tmp_path.iterdir())
