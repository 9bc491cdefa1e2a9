"""What the tests of training share: one small simulated shop, split, and a model fitted on it."""

from pathlib import Path

import pytest

from features.tables import Tables
from tests.training.tables import simulated
from training.bands import default_costs
from training.dataset import TimeSplit, rates_of, training_frame
from training.fit import Fitted, fit
from training.page import write_page
from training.report import Picture, TrainedReport
from training.train import train


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
def drawn(home: Path, tables: Tables) -> tuple[TrainedReport, Picture]:
    """The report of that home's first version, and what its page was drawn from."""
    pictures: list[Picture] = []

    def kept(report: TrainedReport, picture: Picture, path: Path) -> None:
        pictures.append(picture)
        write_page(report, picture, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.page.write_page", kept)
        report = train(tables, home=home)
    return report, pictures[0]


@pytest.fixture(scope="session")
def report(drawn: tuple[TrainedReport, Picture]) -> TrainedReport:
    """The report of that home's first version."""
    return drawn[0]
