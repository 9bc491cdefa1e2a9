"""MLflow: runs, artifacts and the registered model. The only module that imports it (it is slow).

Everything lies under RECOURSE_HOME: the database of runs and versions, and what they logged. Each
version of ``refund-abuse`` is a pyfunc whose ``predict`` takes the model's features as columns and
gives the calibrated probability; inside it lies the AbuseModel directory that serving reads. The
alias ``champion`` names the version that decides, ``challenger`` one that the service scores beside
it without acting on it; each goes with a pointer of `serving.home.Home`, which serving reads.
"""

from __future__ import annotations

import fcntl
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# Said before MLflow is imported: no progress bars, and nothing reported to anybody.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from numpy.typing import NDArray

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from serving.home import Home
from serving.model import AbuseModel, ModelError
from serving.scorer import Champion

MODEL_NAME: Final = "refund-abuse"
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
_EXPERIMENT: Final = "refund-abuse"
_CHAMPIONS: Final = "champions"
_DIRECTORY: Final = "abuse_model"
_SCHEMES: Final = ("models:/", "runs:/")
_NEEDED: Final = (mlflow, lightgbm, np, pd)


class CalibratedProbability(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """The pyfunc face of an AbuseModel."""

    def load_context(self, context: Any) -> None:
        """Read the model from the version's artifacts."""
        self.model = AbuseModel.load(Path(context.artifacts[_DIRECTORY]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: Any = None
    ) -> NDArray[np.float64]:
        """Calibrated probabilities (n,) of a DataFrame that has a column per feature."""
        names = list(self.model.feature_names)
        return self.model.predict(model_input[names].to_numpy(np.float64, na_value=np.nan))


class Registry:
    """The models and runs under one RECOURSE_HOME."""

    def __init__(self, home: Home) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home = home
        self._client = mlflow.MlflowClient(home.tracking_uri)
        # MLflow makes its tables when first asked, and two of it at once would both.
        with (home.root / ".mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._client.search_registered_models(max_results=1)

    @contextmanager
    def run(self) -> Iterator[str]:
        """An MLflow run; gives its id. What is logged within belongs to it."""
        mlflow.set_tracking_uri(self.home.tracking_uri)
        found = mlflow.get_experiment_by_name(_EXPERIMENT)
        experiment = found.experiment_id if found else mlflow.create_experiment(
            _EXPERIMENT, artifact_location=self.home.artifacts.as_uri()
        )  # fmt: skip
        with mlflow.start_run(experiment_id=experiment) as run:
            yield str(run.info.run_id)

    def log(
        self, parameters: Mapping[str, Any], metrics: Mapping[str, float], folder: Path
    ) -> None:
        """Parameters, figures (those that are known) and a folder of files, into the open run."""
        mlflow.log_params(dict(parameters))
        mlflow.log_metrics({name: x for name, x in metrics.items() if np.isfinite(x)})
        mlflow.log_artifacts(str(folder))

    def register(self, model: AbuseModel, directory: Path) -> str:
        """Log a saved model as a pyfunc into the open run; returns its registered version."""
        signature = ModelSignature(
            Schema([ColSpec("double", name) for name in model.feature_names]),
            Schema([ColSpec("double")]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # asks for an input example, which takes 20 seconds
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=CalibratedProbability(),
                artifacts={_DIRECTORY: str(directory)},
                signature=signature,
                # Given, because working them out starts another interpreter.
                pip_requirements=[f"{m.__name__}=={m.__version__}" for m in _NEEDED],
            )
        if not self._client.search_registered_models(f"name = '{MODEL_NAME}'"):
            self._client.create_registered_model(MODEL_NAME)
        version = self._client.create_model_version(
            MODEL_NAME, logged.model_uri, logged.run_id, model_id=logged.model_id
        )
        return str(version.version)

    @contextmanager
    def registered(self, directory: Path | None, model: AbuseModel) -> Iterator[str | None]:
        """A saved model as a registered version, for good when the block ends well.

        Where it fails, or is interrupted, the version is taken back. Without a directory nothing
        is registered.
        """
        version = None if directory is None else self.register(model, directory)
        try:
            yield version
        except BaseException:
            if version is not None:
                self._client.delete_model_version(MODEL_NAME, version)
            raise

    def champion(self) -> str | None:
        """The version that serves, None before the first."""
        return self._version_of(CHAMPION)

    def challenger(self) -> str | None:
        """The version that is scored in the shadow, None without one."""
        return self._version_of(CHALLENGER)

    def _version_of(self, alias: str) -> str | None:
        models = self._client.search_registered_models(f"name = '{MODEL_NAME}'")
        version = models[0].aliases.get(alias) if models else None
        return None if version is None else str(version)

    def versions(self) -> list[str]:
        """All registered versions, oldest first."""
        found = self._client.search_model_versions(f"name = '{MODEL_NAME}'")
        return sorted((str(version.version) for version in found), key=int)

    def champions(self) -> list[str]:
        """Who was champion in turn, the present one last; a rollback takes the last away."""
        models = self._client.search_registered_models(f"name = '{MODEL_NAME}'")
        said = models[0].tags.get(_CHAMPIONS, "") if models else ""
        return said.split()

    def crown(self, champions: list[str]) -> None:
        """Make the last of ``champions`` champion and serve it, the others those before it."""
        version = champions[-1]
        # The history first: whoever is champion can then always be rolled back from.
        self._client.set_registered_model_tag(MODEL_NAME, _CHAMPIONS, " ".join(champions))
        self.home.serve_model(self._directory(version), version)
        self._client.set_registered_model_alias(MODEL_NAME, CHAMPION, version)
        if self.challenger() == version:
            self.end_challenge()

    def challenge(self, version: str, base_currency: str) -> None:
        """Have the service score a version beside the champion, in place of an earlier one.

        Raises LookupError for a version that does not exist or is champion, and ModelError, as
        `serving.scorer.Champion.of` does, for one that could not serve.
        """
        versions = self.versions()
        if version not in versions:
            known = ", ".join(versions) or "none, train first"
            raise LookupError(f"{MODEL_NAME} has no version {version}: expected one of {known}")
        if version == self.champion():
            raise LookupError(f"version {version} is champion: it decides, and needs no shadow")
        Champion.of(self.load(version), version, base_currency)
        self.home.shadow_model(self._directory(version), version)
        self._client.set_registered_model_alias(MODEL_NAME, CHALLENGER, version)

    def end_challenge(self) -> str | None:
        """Score no version in the shadow any more; returns the one that was."""
        version = self.challenger()
        self.home.end_shadow()
        if version is not None:
            self._client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)
        return version

    def load(self, version: str) -> AbuseModel:
        """The model of a registered version."""
        return AbuseModel.load(self._directory(version))

    def usable_champion(self) -> AbuseModel | None:
        """The champion, if it could still decide: one of another catalog or format is no measure.

        None where there is no champion either.
        """
        version = self.champion()
        if version is None:
            return None
        try:
            model = self.load(version)
            model.check_features(
                tuple(feature.name for feature in MODEL_FEATURES), definitions_hash(MODEL_FEATURES)
            )
        except ModelError:
            return None
        return model

    def find(self, uri: str) -> Path:
        """The AbuseModel directory behind an MLflow address of a model that `register` logged.

        Such as ``models:/refund-abuse@champion``, ``models:/refund-abuse/2`` or
        ``runs:/<run id>/model``. Raises LookupError where there is none.
        """
        if not uri.startswith(_SCHEMES):
            raise LookupError(f"{uri}: expected an address that starts with "
                              f"{' or '.join(_SCHEMES)}")  # fmt: skip
        try:
            logged = self._fetched(artifact_uri=uri)
        except (MlflowException, OSError) as error:
            said = str(error).partition("\n")[0].rstrip(".")
            raise LookupError(f"{uri}: no model there, {said}") from error
        found = sorted((logged / "artifacts").glob("*/manifest.json"))
        if not found:
            raise LookupError(f"{uri}: expected a model that `recourse train` logged")
        return found[0].parent

    def run_file(self, version: str, name: str) -> Path:
        """A file that the version's run logged; raises LookupError where it is gone."""
        run_id = self._client.get_model_version(MODEL_NAME, version).run_id
        try:
            return self._fetched(run_id=run_id, artifact_path=name)
        except (MlflowException, OSError) as error:
            raise LookupError(f"the run of version {version} has no {name} any more") from error

    def _directory(self, version: str) -> Path:
        return self.find(f"models:/{MODEL_NAME}/{version}")

    def _fetched(self, **what: str | None) -> Path:
        # A models:/ address is looked up in MLflow's global store, whatever else it is told.
        mlflow.set_tracking_uri(self.home.tracking_uri)
        return Path(mlflow.artifacts.download_artifacts(**what))
