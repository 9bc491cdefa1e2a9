"""The registry: a challenger is an alias and a pointer; a model is found by its address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.home import Home
from serving.model import AbuseModel, FeatureMismatch, ModelError
from tests.serving.champions import trained_model
from training.registry import Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Four versions, the first one champion: two that can serve, and two that cannot."""
    home, model = Home(tmp_path_factory.mktemp("registry")), trained_model()
    made = Registry(home)
    models = (
        model, model,
        replace(model, manifest=replace(model.manifest, features_hash="other")),
        replace(model, manifest=replace(model.manifest, base_currency="USD")),
    )  # fmt: skip
    for number, each in enumerate(models, 1):
        directory = tmp_path_factory.mktemp("saved") / "abuse_model"
        each.save(directory)
        with made.run():
            assert made.register(each, directory) == str(number)
    made.crown(["1"])
    return made


@pytest.fixture
def home(registry: Registry) -> Iterator[Home]:
    yield registry.home
    registry.end_challenge()


def test_a_challenger_is_an_alias_and_a_pointer(registry: Registry, home: Home) -> None:
    assert registry.challenger() is home.challenger_version() is None
    registry.challenge("2", "GBP")
    assert registry.challenger() == home.challenger_version() == "2"
    assert (home.model("2") / "booster.txt").is_file()
    assert registry.champion() == home.served_version() == "1"
    assert registry.end_challenge() == "2"
    assert registry.challenger() is home.challenger_version() is None
    assert registry.end_challenge() is None


def test_who_is_crowned_challenges_no_more(registry: Registry, home: Home) -> None:
    registry.challenge("2", "GBP")
    registry.crown(["1", "2"])
    assert registry.challenger() is home.challenger_version() is None
    registry.challenge("1", "GBP")
    registry.crown(["1", "2"])
    assert registry.challenger() == "1", "another one's crown does not end it"
    registry.crown(["1"])
    assert registry.challenger() is None


@pytest.mark.parametrize(
    ("version", "kind", "told"),
    [("9", LookupError, "refund-abuse has no version 9: expected one of 1, 2, 3, 4"),
     ("1", LookupError, "version 1 is champion"),
     ("3", FeatureMismatch, "the same names with other definitions"),
     ("4", ModelError, "learnt amounts in USD, expected GBP")],
)  # fmt: skip
def test_who_could_not_serve_challenges_nobody(
    registry: Registry, home: Home, version: str, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        registry.challenge(version, "GBP")
    assert registry.challenger() is home.challenger_version() is None


@pytest.mark.parametrize("address", ["models:/refund-abuse@champion", "models:/refund-abuse/1"])
def test_a_model_is_found_by_its_address(registry: Registry, address: str) -> None:
    found = AbuseModel.load(registry.find(address))
    assert found.manifest == registry.load("1").manifest


@pytest.mark.parametrize(
    ("address", "told"),
    [("models:/refund-abuse@nobody", "models:/refund-abuse@nobody: no model there, "),
     ("models:/refund-abuse/99", "no model there, "),
     ("models:/other/1", "no model there, "),
     ("runs:/nothing/model", "no model there, "),
     ("models:/", "no model there, "),
     ("s3://bucket/model", "expected an address that starts with models:/ or runs:/")],
)  # fmt: skip
def test_an_address_of_nothing_is_refused(registry: Registry, address: str, told: str) -> None:
    with pytest.raises(LookupError, match=told):
        registry.find(address)


def test_a_model_of_somebody_else_is_refused(registry: Registry, tmp_path: Path) -> None:
    import mlflow

    class Constant(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: object, model_input: list[str]) -> list[str]:
            return model_input

    with registry.run() as run_id:
        mlflow.pyfunc.log_model(name="other", python_model=Constant(), pip_requirements=[])
    with pytest.raises(LookupError, match="expected a model that `recourse train` logged"):
        registry.find(f"runs:/{run_id}/other")
