"""Taking up models: what is offered is served from the next decision on, or refused and logged."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from serving.home import Home
from serving.language import Language
from serving.model import AbuseModel, ModelError, Platt, file_digests
from serving.models import Models, ModelWatch
from serving.scorer import Champion
from tests.serving.champions import trained_model
from tests.serving.test_desk import ME, NOW, Clock, data, kept, open_desk, report, url

__all__ = ["open_desk", "url"]  # fixtures


@pytest.fixture(scope="session")
def model() -> AbuseModel:
    return trained_model()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def watch(home: Home, models: Models) -> ModelWatch:
    return ModelWatch(home, models, "GBP")


@pytest.fixture
def told() -> Any:
    """What was logged, as it is logged."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def offer(home: Home, model: AbuseModel, tmp_path: Path) -> Callable[..., None]:
    """Make a model a version, and give it a role."""

    def offer_one(version: str, role: str = "champion", **changes: Any) -> None:
        made = replace(model, **changes) if changes else model
        made.save(tmp_path / version)
        give = home.serve_model if role == "champion" else home.shadow_model
        give(tmp_path / version, version)

    return offer_one


def versions(models: Models) -> tuple[str | None, str | None]:
    champion, challenger = models.now.champion, models.now.challenger
    return champion.version if champion else None, challenger.version if challenger else None


def events(told: list[Any], *names: str) -> list[Any]:
    return [entry["event"] for entry in told if entry["event"] in names or not names]


# --- what is offered is taken up -----------------------------------------------------------------


def test_a_service_without_a_model_takes_up_its_first(watch, models, offer, told):
    watch.look()
    assert versions(models) == (None, None)
    offer("1")
    watch.look()
    assert versions(models) == ("1", None)
    offer("2")
    watch.look()
    assert versions(models) == ("2", None)
    assert [(e["version"], e["replaced"]) for e in told] == [("1", None), ("2", "1")]


def test_a_model_is_loaded_once(watch, models, offer, told):
    offer("1")
    watch.look()
    first = models.now.champion
    watch.look()
    offer("1")  # written anew, the same version
    watch.look()
    assert models.now.champion is first
    assert events(told) == ["model_taken_up"]


def test_a_rollback_is_taken_up_too(watch, models, home, offer):
    for version in ("1", "2"):
        offer(version)
        watch.look()
    home.serve_model(home.model("1"), "1")
    watch.look()
    assert versions(models) == ("1", None)


def test_a_challenger_comes_and_goes_beside_its_champion(watch, models, home, offer, told):
    offer("1")
    offer("2", "challenger")
    watch.look()
    assert versions(models) == ("1", "2")
    assert models.now.shadow is models.now.challenger
    home.end_shadow()
    watch.look()
    assert versions(models) == ("1", None)
    assert models.now.shadow is None
    assert events(told)[-1] == "model_put_down"


def test_a_challenger_that_became_champion_is_not_scored_twice(watch, models, offer):
    offer("2", "challenger")
    offer("2")
    watch.look()
    assert versions(models) == ("2", "2")
    assert models.now.shadow is None


def test_the_thread_takes_up_what_is_offered_and_ends_when_told(
    home, models, offer, monkeypatch
):  # fmt: skip
    monkeypatch.setattr("serving.models.LOOK_SECONDS", 0.01)
    taken = threading.Event()

    class Watched(Models):
        def put(self, role: Any, model: Champion | None) -> None:
            super().put(role, model)
            taken.set()

    watched = Watched()
    watch = ModelWatch(home, watched, "GBP")
    watch.start()
    offer("1")
    assert taken.wait(30)
    watch.stop()
    assert versions(watched) == ("1", None)
    offer("2")
    assert not [thread for thread in threading.enumerate() if thread.name == "model-watch"]


# --- what is refused changes nothing -------------------------------------------------------------


def broken_files(home: Home, offer: Callable[..., None]) -> None:
    offer("2")
    (home.model("2") / "booster.txt").write_text("tree\nthis is no booster\n")


def missing_files(home: Home, offer: Callable[..., None]) -> None:
    offer("2")
    shutil.rmtree(home.model("2"))


def no_number(home: Home, offer: Callable[..., None]) -> None:
    offer("2")
    path = home.model("2")
    (path / "calibrator.json").write_text('{"kind": "platt", "slope": NaN, "intercept": 0}')
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "files": file_digests(path)}))


def empty_pointer(home: Home, offer: Callable[..., None]) -> None:
    home.pointer.write_text("")


BROKEN = {
    "a broken booster": (broken_files, "booster.txt: damaged"),
    "no files": (missing_files, "no model, it lacks booster.txt, calibrator.json"),
    "no probability": (no_number, "expected a number in [0, 1], got nan"),
    "an empty pointer": (empty_pointer, "no model, it lacks"),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered in logaddexp:RuntimeWarning")
@pytest.mark.parametrize(("spoil", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_refused_once_and_the_running_one_stays(
    watch, models, home, offer, told, spoil, why
):
    offer("1")
    watch.look()
    spoil(home, offer)
    watch.look()
    watch.look()
    assert versions(models) == ("1", None)
    (refusal,) = [entry for entry in told if entry["log_level"] == "error"]
    assert refusal["event"] == "model_refused"
    assert why in refusal["reason"]
    assert refusal["then"] == "version 1 stays"


def test_a_mismatch_is_refused_with_all_reasons(watch, models, offer, model, told):
    renamed = ("colour", *model.feature_names[1:])
    other = replace(model.manifest, feature_names=renamed, base_currency="USD")
    offer("2", manifest=other)
    watch.look()
    assert versions(models) == (None, None)
    (refusal,) = told
    for reason in (
        "missing from the catalog: colour",
        f"extra in the catalog: {model.feature_names[0]}",
        "base_currency: the model learnt amounts in USD, expected GBP",
    ):
        assert reason in refusal["reason"]
    assert refusal["then"] == "there is no champion"


def test_a_refused_version_is_looked_at_again_when_it_is_promoted_again(
    watch, models, home, offer, model, told
):
    offer("1")
    watch.look()
    missing_files(home, offer)
    watch.look()
    model.save(home.model("2"))
    watch.look()
    assert versions(models) == ("1", None)
    offer("2")
    watch.look()
    assert versions(models) == ("2", None)


def test_what_the_disk_has_against_it_is_tried_again(watch, models, offer, told, monkeypatch):
    offer("1")
    load = AbuseModel.load
    tries = iter([OSError(5, "Input/output error")] * 2)

    def flaky(path: Path) -> AbuseModel:
        for error in tries:
            raise error
        return load(path)

    monkeypatch.setattr(AbuseModel, "load", flaky)
    for _ in range(3):
        watch.look()
    assert versions(models) == ("1", None)
    assert events(told) == ["model_refused", "model_taken_up"]


def test_a_lost_pointer_takes_no_champion_away(watch, models, home, offer, told):
    offer("1")
    watch.look()
    home.pointer.unlink()
    watch.look()
    watch.look()
    assert versions(models) == ("1", None)
    assert events(told) == ["model_taken_up", "model_pointer_gone"]


def test_a_model_that_is_taken_up_speaks_the_language_of_the_service(home, models, offer):
    french = Language("fr", {"the refund is worth {value}": ("il s'agit de {value}",)})
    offer("1")
    ModelWatch(home, models, "GBP", french).look()
    ranking = models.now.champion.ranking
    amount = [f.name for f in ranking.features].index("payable_minor")
    said = ranking.sentence(amount, np.full(len(ranking.features), 129_900.0))
    assert said == "il s'agit de 1\u202f299,00 GBP"


def test_a_refused_challenger_does_not_keep_a_champion_away(watch, models, offer, model, told):
    offer("1", "challenger", manifest=replace(model.manifest, features_hash="other"))
    offer("2")
    watch.look()
    assert versions(models) == ("2", None)
    assert sorted(events(told)) == ["model_refused", "model_taken_up"]


# --- a decision is of one model ------------------------------------------------------------------


def test_a_decision_is_signed_by_the_model_that_scored_it(open_desk, model):
    """Another one is put in office by the very act of scoring, as by a thread that cuts in."""
    desk = open_desk(champion=Champion.of(model, "1"))
    successor = Champion.of(replace(model, calibrator=Platt(1.0, -9.0)), "2")
    first = desk.models.now.champion

    class Interrupted:
        reference = model.reference

        def predict(self, matrix: Any) -> Any:
            desk.models.put("champion", successor)
            return model.predict(matrix)

    desk.models.put("champion", replace(first, model=Interrupted(), is_quick=False))
    now = Clock()
    for version, asked in (("1", "r-1"), ("2", "r-2")):
        answer = desk.decide(report(refund_id=asked), now, ME)
        assert data(answer)["modelVersion"] == kept(desk, answer)["model_version"] == version
    probabilities = [desk.store.decisions_of(r)[0].record["probability"] for r in ("r-1", "r-2")]
    assert probabilities[0] > 100 * probabilities[1]


def test_a_desk_without_a_model_scores_when_one_is_put(open_desk, model):
    desk = open_desk(champion=None)
    now = Clock()
    before = desk.decide(report(), now, ME)
    assert data(before)["degraded"]
    assert "modelVersion" not in data(before)
    desk.models.put("champion", Champion.of(model, "1"))
    after = desk.decide(report(refund_id="r-2"), now, ME)
    assert not data(after)["degraded"]
    assert data(after)["modelVersion"] == "1"
    assert kept(desk, after)["cutoff"] > NOW


def test_a_model_of_another_currency_cannot_serve(model):
    with pytest.raises(ModelError, match="learnt amounts in GBP, expected EUR"):
        Champion.of(model, "1", "EUR")
