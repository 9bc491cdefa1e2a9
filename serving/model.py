"""AbuseModel: what training makes and serving uses. A directory of four files, and `predict`.

- ``booster.txt``: the LightGBM trees, as text;
- ``calibrator.json``: the curve from the trees' log-odds to a probability;
- ``manifest.json``: which features in which order, what a label meant, when and on what trained,
  and the SHA-256 of the other files: LightGBM ends the process when its trees are cut short;
- ``reference.npz``: quantiles of each feature and of the score in training, to measure drift by.

This directory under RECOURSE_HOME is the one way a model reaches serving: the same files are
logged to MLflow for everybody else, and at run time neither MLflow nor its server is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import lightgbm

FloatArray = NDArray[np.float64]

FORMAT: Final = 2
"""The version of the directory's layout; another one is refused."""

RESOLUTION: Final = 1000
"""Into so many parts quantiles divide what was seen in training."""

_BOOSTER, _CALIBRATOR, _MANIFEST, _REFERENCE = (
    "booster.txt", "calibrator.json", "manifest.json", "reference.npz",
)  # fmt: skip
_FILES: Final = "files"


class ModelError(ValueError):
    """A directory holds no model that this code can read."""


class FeatureMismatch(ModelError):  # noqa: N818 - names a state of affairs, as in the design
    """A model was trained on other features than the catalog defines now."""


# --- calibrators -----------------------------------------------------------------------------


class Calibrator(Protocol):
    """A non-decreasing curve from log-odds to probability."""

    kind: ClassVar[str]

    def probability(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (n,) of log-odds (n,), or one of one: the same, to the bit."""
        ...


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """The logistic function, without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return np.exp(-np.logaddexp(0.0, -log_odds))


@dataclass(frozen=True)
class Platt:
    """Platt (1999): a logistic curve of the log-odds.

    >>> Platt(slope=1.0, intercept=0.0).probability(np.zeros(1)).tolist()
    [0.5]
    """

    kind: ClassVar[str] = "platt"
    slope: float
    intercept: float

    def probability(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (n,) of log-odds (n,)."""
        return sigmoid(self.slope * log_odds + self.intercept)


@dataclass(frozen=True)
class Beta:
    """Kull, Silva Filho and Flach (2017): the two tails of the score bend apart.

    The log-odds of the result are ``a ln s - b ln(1 - s) + c``, s being the score's own sigmoid.

    >>> identity = Beta(a=1.0, b=1.0, c=0.0)
    >>> np.allclose(identity.probability(np.array([-2.0, 3.0])), sigmoid(np.array([-2.0, 3.0])))
    True
    """

    kind: ClassVar[str] = "beta"
    a: float
    b: float
    c: float

    def probability(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (n,) of log-odds (n,)."""
        high, low = np.logaddexp(0.0, log_odds), np.logaddexp(0.0, -log_odds)
        return sigmoid(self.b * high - self.a * low + self.c)


@dataclass(frozen=True)
class Isotonic:
    """Zadrozny and Elkan (2002): a rising line through the thresholds, level beyond them.

    >>> Isotonic((0.0, 2.0), (0.1, 0.5)).probability(np.array([-9.0, 1.0, 9.0])).round(3).tolist()
    [0.1, 0.3, 0.5]
    """

    kind: ClassVar[str] = "isotonic"
    log_odds: Sequence[float]
    probabilities: Sequence[float]

    def probability(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities (n,) of log-odds (n,)."""
        return np.interp(log_odds, self.log_odds, self.probabilities)


_CALIBRATORS: Final[Mapping[str, type[Platt | Beta | Isotonic]]] = {
    kind.kind: kind for kind in (Platt, Beta, Isotonic)
}


def calibrator_to_json(calibrator: Platt | Beta | Isotonic) -> dict[str, Any]:
    """A calibrator's kind and parameters.

    >>> calibrator_to_json(Platt(1.0, -0.5))
    {'kind': 'platt', 'slope': 1.0, 'intercept': -0.5}
    """
    return {"kind": calibrator.kind, **asdict(calibrator)}


def calibrator_from_json(document: Mapping[str, Any]) -> Platt | Beta | Isotonic:
    """The inverse of `calibrator_to_json`; raises ModelError for what it never wrote.

    >>> calibrator_from_json({"kind": "platt", "slope": 1.0, "intercept": -0.5})
    Platt(slope=1.0, intercept=-0.5)
    """
    parameters = dict(document)
    kind = parameters.pop("kind", None)
    try:
        return _CALIBRATORS[kind](**parameters)
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"calibrator: expected one of {', '.join(_CALIBRATORS)} with its parameters, "
            f"got {dict(document)!r}"
        ) from error


# --- manifest and reference ------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """What a model was made of. Times are epoch milliseconds (UTC).

    ``training_from`` and ``training_until`` are the first and last ``known_at`` of the refunds it
    learnt from, ``test_from`` the instant at which their labels were read: rows from there on are
    new to the model. ``base_rate`` is the share of abuse among the former, ``expected_log_odds``
    the score from which SHAP contributions start.
    """

    feature_names: tuple[str, ...]
    features_hash: str
    base_currency: str
    label_definition: Mapping[str, Any]
    training_from: int
    training_until: int
    test_from: int
    base_rate: float
    expected_log_odds: float
    data_digest: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain values."""
        return {"format": FORMAT, **asdict(self), "feature_names": list(self.feature_names)}

    def check_features(self, names: Sequence[str], definitions_hash: str) -> None:
        """Raise FeatureMismatch unless the catalog defines exactly what the model was trained on.

        ``names`` and ``definitions_hash`` are those of the catalog's model features.
        """
        wanted = self.feature_names
        problems = [
            f"{what}: {', '.join(sorted(found))}"
            for what, found in (
                ("missing from the catalog", set(wanted) - set(names)),
                ("extra in the catalog", set(names) - set(wanted)),
            )
            if found
        ]
        if not problems and tuple(names) != wanted:
            problems.append("the same features in another order")
        if not problems and definitions_hash != self.features_hash:
            problems.append(
                f"the same names with other definitions: expected hash "
                f"{self.features_hash}, the catalog has {definitions_hash}"
            )
        if problems:
            raise FeatureMismatch(
                "the model's features are not the catalog's: "
                + "; ".join(problems)
                + " (train and promote a model of this catalog)"
            )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_json`; raises ModelError for another format."""
        values = {name: value for name, value in document.items() if name != _FILES}
        found = values.pop("format", None)
        if found != FORMAT:
            raise ModelError(
                f"manifest: expected format {FORMAT}, got {found!r} (train and promote again)"
            )
        try:
            return cls(**{**values, "feature_names": tuple(values["feature_names"])})
        except (KeyError, TypeError) as error:
            raise ModelError(f"manifest: {error}") from error


@dataclass(frozen=True)
class Reference:
    """What training looked like: evenly spaced quantiles of known values, and shares unknown.

    ``quantiles`` is (features, q), NaN for a feature never known; ``unknown_share`` (features,);
    ``score_quantiles`` (q,), of the calibrated probability. They are values that were seen, and q
    is `RESOLUTION` + 1; models made before have 101.
    """

    quantiles: FloatArray
    unknown_share: FloatArray
    score_quantiles: FloatArray

    @classmethod
    def of(cls, matrix: FloatArray, probability: FloatArray) -> Reference:
        """The reference of a training matrix (n, features) and its probabilities (n,).

        >>> reference = Reference.of(np.array([[1.0, np.nan], [3.0, np.nan]]), np.array([0.1, 0.3]))
        >>> reference.quantiles[0, [0, 500, 501]].tolist(), reference.unknown_share.tolist()
        ([1.0, 1.0, 3.0], [0.0, 1.0])
        """
        unknown = np.isnan(matrix)
        quantiles = np.full((matrix.shape[1], RESOLUTION + 1), np.nan)
        for column, missing in enumerate(unknown.T):
            if not missing.all():
                quantiles[column] = _quantiles(matrix[~missing, column])
        return cls(quantiles, unknown.mean(axis=0), _quantiles(probability))


def _quantiles(values: FloatArray) -> FloatArray:
    """Of each k of `RESOLUTION` the smallest value that so large a part does not exceed.

    Definition 1 of Hyndman and Fan (1996), in whole numbers: no rounding moves a place.
    """
    places = -(-np.arange(RESOLUTION + 1) * len(values) // RESOLUTION) - 1
    found: FloatArray = np.sort(values)[np.maximum(places, 0)]
    return found


# --- the model -------------------------------------------------------------------------------


@dataclass(frozen=True)
class AbuseModel:
    """Trees, their calibration, and where they come from. Safe to call from many threads."""

    booster: lightgbm.Booster
    calibrator: Platt | Beta | Isotonic
    manifest: Manifest
    reference: Reference

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The model's inputs, in the order of a matrix's columns."""
        return self.manifest.feature_names

    def log_odds(self, matrix: FloatArray) -> FloatArray:
        """What the trees say (n,) of rows (n, features), NaN where unknown, before calibration.

        Raises ValueError for another number of columns.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(self.feature_names):
            raise ValueError(
                f"matrix: expected shape (n, {len(self.feature_names)}), got {matrix.shape}"
            )
        # One thread: waking others costs more than the few rows a decision has.
        threads: dict[str, Any] = {"num_threads": 1} if len(matrix) < 256 else {}
        return np.asarray(self.booster.predict(matrix, raw_score=True, **threads), np.float64)

    def predict(self, matrix: FloatArray) -> FloatArray:
        """Calibrated probabilities of abuse (n,) of rows (n, features), NaN where unknown."""
        return self.calibrator.probability(self.log_odds(matrix))

    def check_features(self, names: Sequence[str], definitions_hash: str) -> None:
        """Raise FeatureMismatch unless the catalog defines exactly what the model was trained on.

        ``names`` and ``definitions_hash`` are those of the catalog's model features.
        """
        self.manifest.check_features(names, definitions_hash)

    def save(self, path: Path) -> None:
        """Write the model as a directory; the same model gives the same bytes."""
        path.mkdir(parents=True, exist_ok=True)
        (path / _BOOSTER).write_text(self.booster.model_to_string(), encoding="utf-8")
        _write_json(path / _CALIBRATOR, calibrator_to_json(self.calibrator))
        np.savez(
            path / _REFERENCE,
            quantiles=self.reference.quantiles,
            unknown_share=self.reference.unknown_share,
            score_quantiles=self.reference.score_quantiles,
        )
        _write_json(path / _MANIFEST, {**self.manifest.to_json(), _FILES: file_digests(path)})

    @classmethod
    def load(cls, path: Path) -> AbuseModel:
        """Read what `save` wrote; raises ModelError naming everything that is not there."""
        # Here, where it is needed: it brings whatever it works with, and takes a second.
        import lightgbm

        manifest = whole_manifest(path)
        booster = lightgbm.Booster(model_str=(path / _BOOSTER).read_text(encoding="utf-8"))
        if booster.num_feature() != len(manifest.feature_names):
            raise ModelError(f"{path}: the trees have {booster.num_feature()} features, "
                             f"the manifest {len(manifest.feature_names)}")  # fmt: skip
        with np.load(path / _REFERENCE, allow_pickle=False) as arrays:
            reference = Reference(**{name: arrays[name] for name in arrays.files})
        calibrator = calibrator_from_json(_read_json(path / _CALIBRATOR))
        return cls(booster, calibrator, manifest, reference)


def whole_manifest(path: Path) -> Manifest:
    """The manifest of a model whose files are all there, as they were saved.

    Raises ModelError naming everything that is not. Loads no trees, so it takes no time.
    """
    absent = [name for name in (_BOOSTER, _CALIBRATOR, _MANIFEST, _REFERENCE)
              if not (path / name).is_file()]  # fmt: skip
    if absent:
        raise ModelError(f"{path}: no model, it lacks {', '.join(absent)}")
    document = _read_json(path / _MANIFEST)
    manifest = Manifest.from_json(document)
    if damaged := _damaged(path, document):
        files = ", ".join(str(path / name) for name in damaged)
        raise ModelError(f"{files}: damaged, expected the SHA-256 that the manifest has")
    return manifest


def file_digests(path: Path) -> dict[str, str]:
    """The SHA-256 of a model's files but the manifest, which holds them."""
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest()
            for name in (_BOOSTER, _CALIBRATOR, _REFERENCE)}  # fmt: skip


def is_whole(path: Path) -> bool:
    """Whether a directory has all files of a model, as they were saved."""
    try:
        return not _damaged(path, _read_json(path / _MANIFEST))
    except (OSError, ModelError):
        return False


def _damaged(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    saved = manifest.get(_FILES, {})
    return [name for name, digest in file_digests(path).items() if saved.get(name) != digest]


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise ModelError(f"{path}: expected JSON, {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document
