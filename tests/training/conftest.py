"""What the tests of training share: one small simulated shop, split, and a model fitted on it."""

from pathlib import Path

import pytest

from features.tables import Tables
from tests.training.tables import simulated
from training.dataset import TimeSplit, rates_of, training_frame
from training.report import TrainedReport
from training.thresholds import default_costs
from training.train import Fitted, fit, train


@pytest.fixture(scope="session")
def tables() -> Tables:
    return simulated(customers=2500, days=420, seed=5)


@pytest.fixture(scope="session")
def split(tables: Tables) -> TimeSplit:
    return training_frame(tables, rates_of(tables))


@pytest.fixture(scope="session")
def fitted(split: TimeSplit) -> Fitted:
    return fit(split, seed=0, base="GBP", costs=default_costs(), digest="d1")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RECOURSE_HOME that tests share, because MLflow takes seconds to make its database."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def report(home: Path, tables: Tables) -> TrainedReport:
    """The report of that home's first version."""
    return train(tables, home=home)
