"""AbuseModel: what is saved is what is loaded, and other features are refused by name."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.model import (
    RESOLUTION,
    AbuseModel,
    Beta,
    FeatureMismatch,
    Isotonic,
    Manifest,
    ModelError,
    Platt,
    Reference,
    calibrator_from_json,
    calibrator_to_json,
    sigmoid,
)

NAMES = ("amount", "age", "count")
numbers = st.floats(-50, 50)
calibrators = st.one_of(
    st.builds(Platt, numbers, numbers),
    st.builds(Beta, numbers, numbers, numbers),
    st.lists(st.tuples(numbers, st.floats(0, 1)), min_size=1, max_size=9).map(
        lambda points: Isotonic(tuple(sorted(x for x, _ in points)),
                                tuple(sorted(p for _, p in points)))
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(600, 3))
    rows[::7, 1] = np.nan
    return rows


@pytest.fixture(scope="module")
def model(rows: np.ndarray) -> AbuseModel:
    abuse = rows[:, 0] + np.nan_to_num(rows[:, 1]) > 1
    data = lightgbm.Dataset(rows, abuse, feature_name=list(NAMES))
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 15)
    manifest = Manifest(
        feature_names=NAMES, features_hash="abc", base_currency="GBP",
        label_definition={"maturity_days": 60}, training_from=1, training_until=2, test_from=3,
        base_rate=0.1, expected_log_odds=-2.0, data_digest="d", metrics={"auc": 0.9, "ap": None},
        libraries={"lightgbm": lightgbm.__version__},
    )  # fmt: skip
    return AbuseModel(booster, Platt(0.8, -0.1), manifest, Reference.of(rows, abuse * 0.5))


# --- calibrators ---------------------------------------------------------------------------------


@given(calibrators, st.lists(st.floats(-800, 800), min_size=1, max_size=20))
def test_one_score_is_calibrated_as_many_are_to_the_bit(
    calibrator: Platt | Beta | Isotonic, log_odds: list[float]
) -> None:
    many = np.array(log_odds)
    one_by_one = np.array([calibrator.probability(one) for one in many])
    assert one_by_one.tobytes() == calibrator.probability(many).tobytes()


@given(calibrators)
def test_calibrators_survive_json(calibrator: Platt | Beta | Isotonic) -> None:
    document = json.loads(json.dumps(calibrator_to_json(calibrator)))
    again = calibrator_from_json(document)
    grid = np.linspace(-60, 60, 41)
    np.testing.assert_array_equal(again.probability(grid), calibrator.probability(grid))


@pytest.mark.parametrize("document", [{}, {"kind": "magic"}, {"kind": "platt", "slope": 1.0}])
def test_a_calibrator_that_was_never_written_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="expected one of platt, beta, isotonic"):
        calibrator_from_json(document)


def test_extreme_scores_stay_probabilities() -> None:
    far = np.array([-1e6, 1e6])
    for calibrator in (Platt(3, 0), Beta(1, 2, 0), Isotonic((-1.0, 1.0), (0.1, 0.9))):
        assert ((calibrator.probability(far) >= 0) & (calibrator.probability(far) <= 1)).all()


# --- predict -------------------------------------------------------------------------------------


def test_predict_is_the_calibrated_score_of_the_trees(model: AbuseModel, rows: np.ndarray) -> None:
    raw = model.booster.predict(rows, raw_score=True)
    np.testing.assert_array_equal(model.log_odds(rows), raw)
    np.testing.assert_allclose(model.predict(rows), sigmoid(0.8 * raw - 0.1), rtol=1e-12)


def test_one_row_gives_what_many_give(model: AbuseModel, rows: np.ndarray) -> None:
    together = model.predict(rows)
    alone = [model.predict(rows[i : i + 1])[0] for i in range(0, 600, 40)]
    np.testing.assert_array_equal(together[::40], alone)


def test_many_threads_get_their_own_answers(model: AbuseModel, rows: np.ndarray) -> None:
    expected = model.predict(rows)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: model.predict(rows[i : i + 1])[0], range(600)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (1, 4)])
def test_another_number_of_columns_is_refused(model: AbuseModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"matrix: expected shape \(n, 3\), got"):
        model.predict(np.zeros(shape))


# --- features ------------------------------------------------------------------------------------


def test_the_catalogs_own_features_pass(model: AbuseModel) -> None:
    model.check_features(NAMES, "abc")


def test_a_mismatch_names_what_is_missing_and_what_is_extra(model: AbuseModel) -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        model.check_features(("amount", "colour", "shape"), "abc")
    assert str(refusal.value) == (
        "the model's features are not the catalog's: missing from the catalog: age, count; "
        "extra in the catalog: colour, shape (train and promote a model of this catalog)"
    )


def test_another_order_or_definition_is_a_mismatch_too(model: AbuseModel) -> None:
    with pytest.raises(FeatureMismatch, match="the same features in another order"):
        model.check_features(("age", "amount", "count"), "abc")
    with pytest.raises(FeatureMismatch, match=r"other definitions: expected hash abc, .* xyz"):
        model.check_features(NAMES, "xyz")


# --- the directory -------------------------------------------------------------------------------


def test_a_saved_model_is_loaded_as_it_was(
    model: AbuseModel, rows: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    again = AbuseModel.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
    assert again.manifest == model.manifest
    assert again.calibrator == model.calibrator
    for name in ("quantiles", "unknown_share", "score_quantiles"):
        np.testing.assert_array_equal(
            getattr(again.reference, name), getattr(model.reference, name)
        )


def test_saving_twice_gives_the_same_bytes(model: AbuseModel, tmp_path: Path) -> None:
    model.save(tmp_path / "a")
    AbuseModel.load(tmp_path / "a").save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_what_is_no_model_is_refused_with_all_that_lacks(model: AbuseModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks booster.txt, calibrator.json, manifest.json, ref"):
        AbuseModel.load(tmp_path)
    model.save(tmp_path)
    for damaged in (b"[", b"\x00\xff{]"):
        (tmp_path / "manifest.json").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"manifest.json: expected JSON"):
            AbuseModel.load(tmp_path)


def test_another_format_or_other_trees_are_refused(model: AbuseModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(ModelError, match="expected format 2, got 99"):
        AbuseModel.load(tmp_path)
    other = replace(model, manifest=replace(model.manifest, feature_names=("amount",)))
    other.save(tmp_path)
    with pytest.raises(ModelError, match="the trees have 3 features, the manifest 1"):
        AbuseModel.load(tmp_path)


def test_the_reference_knows_what_was_never_known(rows: np.ndarray) -> None:
    rows = np.column_stack([rows, np.full(len(rows), np.nan)])
    reference = Reference.of(rows, np.linspace(0, 1, len(rows)))
    assert reference.quantiles.shape == (4, RESOLUTION + 1)
    assert np.isnan(reference.quantiles[3]).all()
    assert reference.unknown_share.tolist() == [0, pytest.approx(86 / 600), 0, 1]
    assert reference.quantiles[0, 0] == rows[:, 0].min()
    assert (np.diff(reference.quantiles[:3], axis=1) >= 0).all()


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60))
def test_quantiles_are_values_that_were_seen_the_least_that_enough_do_not_exceed(
    seen: list[int],
) -> None:
    values = np.array(seen, np.float64)
    quantiles = Reference.of(values[:, None], values).quantiles[0]
    for part, found in enumerate(quantiles.tolist()):
        enough = [v for v in seen if RESOLUTION * sum(o <= v for o in seen) >= part * len(seen)]
        assert found == min(enough)


def test_a_model_with_percentiles_is_read_as_before(model: AbuseModel, tmp_path: Path) -> None:
    older = Reference(np.zeros((3, 101)), np.zeros(3), np.linspace(0, 1, 101))
    replace(model, reference=older).save(tmp_path)
    assert AbuseModel.load(tmp_path).reference.quantiles.shape == (3, 101)


@pytest.mark.parametrize(
    "name", ["booster.txt", "reference.npz", "calibrator.json", "manifest.json"]
)
def test_a_damaged_file_is_named(name: str, model: AbuseModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ModelError, match=name):
        AbuseModel.load(tmp_path)
