"""The test report of a training run: every figure as plain values, and a page to read them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.model import AbuseModel
from training.calibrate import Trial
from training.dataset import Examples
from training.evaluate import Interval
from training.thresholds import Outcome

FloatArray = NDArray[np.float64]

PICTURE_ROWS = 2_000
"""How many test refunds the SHAP summary shows."""


@dataclass(frozen=True)
class TrainedReport:
    """What a training run made and how that did on the out-of-time test.

    ``metrics`` are the test's figures by name, ``intervals`` 95 % bootstrap intervals of some,
    ``baselines`` the same figures of scores the model must beat. Costs are in minor units per
    refund of the base currency. ``champion`` tells whether this version is served now.
    """

    model_version: str
    champion: bool
    run_id: str
    test_from: str
    test_until: str
    training_from: str
    training_until: str
    maturity_days: int
    n_train: int
    n_test: int
    n_positives_train: int
    n_positives_test: int
    trees: int
    calibrator: str
    calibration_trials: tuple[Trial, ...]
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    baselines: Mapping[str, Mapping[str, float]]
    train_labels: Mapping[str, Mapping[str, int]]
    test_labels: Mapping[str, Mapping[str, int]]
    average_precision_by_basis: Mapping[str, float]
    reliability: tuple[Mapping[str, Any], ...]
    bands: Outcome
    cost_of_paying_all_minor: float
    cost_curve: tuple[Outcome, ...]
    top_features: tuple[tuple[str, float], ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """One flat document: the figures of the test by their own names beside everything else."""
        document = asdict(self)
        document["calibration_trials"] = [asdict(trial) for trial in self.calibration_trials]
        document["bands"] = self.bands.to_json()
        document["cost_curve"] = [point.to_json() for point in self.cost_curve]
        metrics = document.pop("metrics")
        return {
            **{name: value for name, value in metrics.items() if name not in _RENAMED},
            "prevalence_test": metrics["prevalence"],
            **document,
        }

    def to_markdown(self) -> str:
        """The report as a page."""
        return "\n\n".join(_page(self)) + "\n"


_RENAMED = frozenset({"n", "n_positives", "prevalence"})


def _page(r: TrainedReport) -> Iterable[str]:
    m = r.metrics
    yield f"# Test report of refund-abuse model {r.model_version}"
    yield (
        f"Trained on {r.n_train:,} refunds ({r.n_positives_train:,} abuse) of {r.training_from} to "
        f"{r.training_until}; tested on {r.n_test:,} ({r.n_positives_test:,} abuse) of "
        f"{r.test_from} to {r.test_until}. A label takes {r.maturity_days} days to mature; "
        f"training used the labels known when the test began. {r.trees} trees, {r.calibrator} "
        f"calibration, {r.seconds:.0f} s."
    )
    yield "## Does it rank?"
    rows = [("model", m), *r.baselines.items()]
    yield _table(
        ("score", "AP", "AUC", "TPR at 5 % FPR"),
        [(name.replace("_", " "), *(f"{figures[key]:.3f}" for key in
          ("average_precision", "auc", "tpr_at_5pct_fpr"))) for name, figures in rows],
    )  # fmt: skip
    yield (
        "95 % intervals over customers: "
        + "; ".join(
            f"{name.replace('_', ' ')} {i.low:.3f} to {i.high:.3f}"
            for name, i in r.intervals.items()
        )
        + f". A random score has an AP of {m['prevalence']:.3f}."
    )
    yield (
        f"A desk of {m['reviews_per_day']:.0f} customers a day finds abuse in "
        f"{m['precision_at_capacity']:.1%} of what it opens (ceiling "
        f"{m['precision_at_capacity_ceiling']:.1%}) and {m['recall_at_capacity']:.1%} of all abuse "
        f"(ceiling {m['recall_at_capacity_ceiling']:.1%})."
    )
    yield (
        "AP where only one source's abuse counts, against clean refunds: "
        + (
            ", ".join(f"{basis} {ap:.3f}" for basis, ap in r.average_precision_by_basis.items())
            or "too few"
        )
        + "."
    )
    yield "## Can its probability be believed?"
    yield (
        f"Brier {m['brier']:.4f}, log-loss {m['log_loss']:.4f}; mean probability "
        f"{m['mean_probability']:.4f} against {m['prevalence']:.4f} observed."
    )
    yield _table(
        ("refunds", "predicted", "observed"),
        [(f"{b['refunds']:,}", f"{b['predicted']:.2%}", f"{b['observed']:.2%}")
         for b in r.reliability],
    )  # fmt: skip
    yield _table(
        ("calibrator tried", "log-loss", "Brier"),
        [(t.kind, f"{t.log_loss:.4f}", f"{t.brier:.4f}") for t in r.calibration_trials],
    )
    yield "## What it saves"
    yield (
        f"Bands chosen before the test: {_bands(r.bands)}. On the test they cost "
        f"{r.bands.cost_minor:.0f} minor units a refund with {r.bands.reviews_per_day:.1f} reviews "
        f"a day and {r.bands.prevented_share:.2%} prevented; paying everything would have cost "
        f"{r.cost_of_paying_all_minor:.0f}."
    )
    yield _table(
        ("review from an expected loss of", "prevent from", "reviews a day", "expected cost"),
        [(f"{o.bands.review_loss_minor:,.0f}", f"{o.bands.prevent_probability or '-'}",
          f"{o.reviews_per_day:.1f}", f"{o.cost_minor:.1f}") for o in r.cost_curve[::4]],
    )  # fmt: skip
    yield "## What the labels were"
    yield _table(
        ("basis", "training", "of it abuse", "test", "of it abuse"),
        [(basis, *(f"{labels[basis][key]:,}" for labels in (r.train_labels, r.test_labels)
                   for key in ("refunds", "abuse"))) for basis in r.train_labels],
    )  # fmt: skip
    yield "## What it looks at"
    yield _table(
        ("feature", "mean absolute contribution, log-odds"),
        [(f"`{name}`", f"{weight:.3f}") for name, weight in r.top_features],
    )


def _bands(o: Outcome) -> str:
    said = f"review from an expected loss of {o.bands.review_loss_minor:,.0f}"
    if o.bands.prevent_probability is not None:
        said += f", prevent from a probability of {o.bands.prevent_probability:.2f}"
    return said


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- what the trees look at ------------------------------------------------------------------


def contributions(model: AbuseModel, examples: Examples) -> tuple[FloatArray, FloatArray]:
    """SHAP values (k, features) in log-odds of an even sample of examples, and its rows."""
    picked = np.linspace(0, len(examples) - 1, min(PICTURE_ROWS, len(examples))).astype(int)
    rows = examples.columns(model.feature_names)[picked]
    values = np.asarray(model.booster.predict(rows, pred_contrib=True))
    return values[:, :-1], rows


def top_features(
    model: AbuseModel, values: FloatArray, count: int = 15
) -> tuple[tuple[str, float], ...]:
    """The features that move the score most, with their mean absolute contribution."""
    weight = np.abs(values).mean(axis=0)
    return tuple(
        (model.feature_names[i], float(weight[i]))
        for i in np.argsort(-weight, kind="stable")[:count]
    )


def draw_summary(model: AbuseModel, values: FloatArray, rows: FloatArray, path: Path) -> None:
    """Draw the SHAP summary: a dot per refund and feature, coloured by the feature's value."""
    import matplotlib  # these two cost seconds, and only here
    import shap

    matplotlib.use("Agg")
    from matplotlib import pyplot

    explained = shap.Explanation(values, data=rows, feature_names=list(model.feature_names))
    shap.plots.beeswarm(explained, max_display=20, show=False, plot_size=(11, 8))
    pyplot.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close()
