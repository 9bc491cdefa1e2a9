"""Train: a data folder in, a tested and registered model out, or every reason why not.

Split in time, look for leaks, fit (`training.fit`), and only then look at the out-of-time test:
figures with intervals, segments, groups, what the bands cost, and the baselines that a model must
beat. A model with a leak, or one that beats too little, is not registered; its report is kept all
the same, for it says why. No resampling anywhere: it raises AUC and lowers AP.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from features.money import DAY_MS
from features.tables import Tables
from rules.document import Band, Costs
from rules.policy import Policy, load_policy
from serving.facts import FACTS
from serving.home import Home
from serving.model import AbuseModel, FeatureMismatch
from training.bands import Bands, Outcome, default_policy_path, outcome
from training.baselines import (
    Baseline,
    against,
    baselines,
    beats,
    blueprint,
    blueprint_costs,
    doubts,
)
from training.capacity import Desk
from training.dataset import (
    FOLDS,
    MODEL_NAMES,
    TimeSplit,
    data_digest,
    day_of,
    feature_frame,
    rates_of,
    training_frame,
)
from training.drift import drift
from training.evaluate import Truth, judge
from training.fairness import Fairness, fairness, groups_of
from training.fit import Fitted, fit, sizes
from training.labels import DEFAULT_MATURITY_DAYS
from training.leaks import LeakReport, find_leaks
from training.propensity import Weighted, weigh
from training.proposal import propose
from training.recipe import Recipe
from training.report import FloatArray, Picture, TrainedReport, contributions
from training.segments import segments
from training.thresholds import REVIEWS_PER_REVIEWER_PER_DAY
from training.validate import Progress

TEST_ROWS: Final = "test.parquet"
"""The run's copy of its test examples: what a later challenger or champion is compared on."""
REPORT: Final = "report.html"
GROUP_PREFIX: Final = "group."
"""Its columns that name groups, after which the FPR ratio is asked."""
WEIGHT: Final = "weight"
"""Its column that says what each refund stands for; without it, for itself."""
PROPOSAL: Final = "policy-proposal.yaml"

FALSE_RATE: Final = 0.05
"""Groups are compared where 5 % of the honest refunds are flagged."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a data scientist may choose of a training run. Times are epoch ms.

    ``test_from``, ``test_until``, ``train_days``, ``folds`` and ``fold_days`` are those of
    `training.dataset.training_frame`, ``search_trials`` how many recipes are tried beside
    ``recipe``, ``trusted`` the features that the leak detector is told to trust, ``groups`` the
    columns of refund requests between which fairness is judged. ``reviews_per_day`` is the desk's
    capacity, where the policy's costs do not say it.
    """

    test_from: int | None = None
    test_until: int | None = None
    maturity_days: int = DEFAULT_MATURITY_DAYS
    train_days: int | None = None
    folds: int = FOLDS
    fold_days: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    search_trials: int = 0
    trusted: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    reviews_per_day: float | None = None
    reviews_per_reviewer_per_day: float = REVIEWS_PER_REVIEWER_PER_DAY


class NotRegistered(Exception):  # noqa: N818 - a verdict, not a fault
    """A model was trained and not registered; ``report`` says all, its ``refusals`` why."""

    def __init__(self, report: TrainedReport, kept: Path) -> None:
        self.report, self.kept = report, kept
        super().__init__(
            f"the model is not registered: {'; '.join(report.refusals)} (report: {kept})"
        )


def train(
    tables: Tables,
    *,
    home: Path,
    options: Options | None = None,
    seed: int = 0,
    base: str = "GBP",
    policy_path: Path | None = None,
    progress: Progress = lambda done, total: None,
    say: Say = lambda stage: None,
) -> TrainedReport:
    """Train on a canonical data folder, test out of time, register; the first model is served.

    ``policy_path`` is the policy whose costs decide and whose bands the proposal replaces, by
    default the one that comes with Recourse. All is written below ``home`` (RECOURSE_HOME), the
    report and the proposal also as ``home/reports/<version>``. ``say`` is told of each stage,
    ``progress`` of the trees, or of the trials of a search.

    Raises NotRegistered, and TooLittleData where the folder has too few mature labels.
    """
    from training.registry import Registry  # imports MLflow, which costs seconds

    options = options or Options()
    path = policy_path or default_policy_path()
    policy = load_policy(path, FACTS)
    clock = _Stages(say)
    rates = rates_of(tables, base)
    clock("features and labels")
    frame = feature_frame(tables, rates)
    split = training_frame(
        tables, rates, test_from=options.test_from, test_until=options.test_until,
        maturity_days=options.maturity_days, train_days=options.train_days, folds=options.folds,
        fold_days=options.fold_days, features=frame,
    )  # fmt: skip
    clock("leaks")
    leaks = find_leaks(split, tables, rates, trusted=options.trusted, seed=seed)
    clock("trees")
    digest = data_digest(tables)
    fitted = fit(
        split, seed=seed, base=base, costs=policy.costs, digest=digest, recipe=options.recipe,
        search_trials=options.search_trials, reviews_per_day=options.reviews_per_day,
        reviews_per_reviewer_per_day=options.reviews_per_reviewer_per_day, progress=progress,
    )  # fmt: skip
    clock("test")
    registry = Registry(Home(home))
    rivals = baselines(split.train, split.test, champion=_champion(registry))
    judged = judge_on_test(fitted, split, tables, policy, options, leaks, rivals, seed)
    model = replace(
        fitted.model,
        manifest=replace(fitted.model.manifest, metrics=judged["judgement"].figures.to_json()),
    )
    clock("report")
    return _keep(
        registry, model, fitted, split, tables, judged, rivals, clock,
        options=options, seed=seed, base=base, policy=policy,
        policy_text=path.read_text(encoding="utf-8"),
    )  # fmt: skip


def judge_on_test(
    fitted: Fitted, split: TimeSplit, tables: Tables, policy: Policy, options: Options,
    leaks: LeakReport, rivals: Sequence[Baseline], seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Everything that a report says of the test, by the names of `TrainedReport`."""
    test, costs, placement = split.test, policy.costs, fitted.placement
    probability = fitted.model.predict(test.inputs)
    truth = Truth.of(test)
    desk = Desk(reviews_per_day=options.reviews_per_day or costs.reviews_per_day)
    bands = placement.bands.written()
    compared = against(probability, truth, rivals, desk=desk, seed=seed)
    scored = blueprint(test)
    refusals = [*(leak.says for leak in leaks.leaks), *beats(compared)]

    def led_to(which: Bands | Sequence[Band]) -> Outcome:
        return outcome(
            which, probability, test.abuse, truth.amount_minor, _days(split), costs,
            known_at=test.known_at, reviews_per_day=placement.chosen.reviews_per_day_at_most,
        )  # fmt: skip

    return {
        "refusals": tuple(refusals),
        "doubts": tuple(doubts(compared)),
        "leaks": leaks,
        "judgement": judge(probability, truth, desk=desk, bands=bands, costs=costs, seed=seed),
        "weighted": _weighted(_weigh(split, tables), probability, split, desk, bands, costs, seed),
        "against": compared,
        "blueprint_unknown": dict(scored.unknown),
        "blueprint_costs": blueprint_costs(scored, truth, costs),
        "outcome": led_to(placement.bands),
        "outcome_of_policy": led_to(policy.bands),
        "outcome_of_paying_all": led_to(()),
        "segments": segments(probability, test, seed=seed),
        "fairness": _fairness(probability, split, tables, options.groups, seed),
        "drift": drift(split.train, test, probability, fitted, seed=seed),
        "sizes": sizes(fitted, test.inputs[:TIMED]),
    }


TIMED: Final = 100


def _days(split: TimeSplit) -> float:
    return float(split.test.known_at[-1] - split.test_from + 1) / DAY_MS


def _weigh(split: TimeSplit, tables: Tables) -> Weighted | None:
    """Inverse-propensity weights of the test, where the folder says how likely its labels were."""
    if "decisions" not in tables or not tables["decisions"].num_rows:
        return None
    weighed = weigh(split.test, tables)
    abuse = split.test.abuse[weighed.used]
    return weighed if 0 < abuse.sum() < len(abuse) else None


def _weighted(
    weighed: Weighted | None, probability: FloatArray, split: TimeSplit, desk: Desk,
    bands: Sequence[Band], costs: Costs, seed: int,
) -> dict[str, Any] | None:  # fmt: skip
    """The same figures under the weights, and what they speak for."""
    if weighed is None:
        return None
    used = weighed.used
    truth = Truth.of(split.test.where(used), weighed.weight[used])
    judged = judge(probability[used], truth, desk=desk, bands=bands, costs=costs, seed=seed)
    return {
        "coverage": weighed.coverage.to_json(),
        "effective_size": weighed.effective_size,
        "judgement": judged.to_json(),
    }


def _fairness(
    probability: FloatArray, split: TimeSplit, tables: Tables, groups: tuple[str, ...], seed: int
) -> tuple[Fairness, ...]:
    honest = split.test.abuse == 0
    cut = float(np.quantile(probability[honest], 1 - FALSE_RATE))
    return tuple(
        fairness(
            column, groups_of(tables, column, split.test.row), probability >= cut,
            split.test.abuse, split.test.customer, seed=seed,
            meaning=f"flagged with {FALSE_RATE:.0%} of the honest refunds",
        )
        for column in groups
    )  # fmt: skip


def _champion(registry: Any) -> AbuseModel | None:
    version = registry.champion()
    if version is None:
        return None
    model: AbuseModel = registry.load(version)
    try:
        model.check_features(MODEL_NAMES, definitions_hash(MODEL_FEATURES))
    except FeatureMismatch:
        return None  # it can serve no more, so it is no measure either
    return model


def _keep(
    registry: Any, model: AbuseModel, fitted: Fitted, split: TimeSplit, tables: Tables,
    judged: Mapping[str, Any], rivals: Sequence[Baseline], clock: _Stages, *, options: Options,
    seed: int, base: str, policy: Policy, policy_text: str,
) -> TrainedReport:  # fmt: skip
    """Log the run with all it found, and register the model unless something speaks against it."""
    from training.page import write_page  # imports matplotlib and shap

    refused = bool(judged["refusals"])
    with TemporaryDirectory() as scratch, registry.run() as run_id:
        directory, logged = Path(scratch) / "abuse_model", Path(scratch) / "logged"
        logged.mkdir()
        model.save(directory)
        version = None if refused else registry.register(model, directory)
        first = version is not None and registry.champion() is None
        values, rows = contributions(model, split.test)
        report = TrainedReport(
            model_version=version, champion=first, run_id=run_id, base_currency=base,
            policy_version=policy.version, **_periods(split), **judged,
            recipe=fitted.validation.recipe.to_json(), trees=fitted.trees,
            validation=fitted.validation.to_json(), trials=fitted.trials,
            calibrator=fitted.calibration.calibrator.kind,
            calibration_trials=fitted.calibration.trials,
            placement=fitted.placement, costs=policy.costs,
            top_features=_top(model, values), seconds=clock.seconds(),
        )  # fmt: skip
        document = json.dumps(report.to_json(), indent=2, allow_nan=False)
        (logged / "report.json").write_text(document, encoding="utf-8")
        proposal = _proposal(fitted, report, policy, policy_text, base)
        (logged / PROPOSAL).write_text(proposal, encoding="utf-8")
        picture = Picture(
            split, model.predict(split.test.inputs), values, rows, tuple(rivals), model.manifest,
            seed,
        )  # fmt: skip
        write_page(report, picture, logged / REPORT)
        pq.write_table(
            _as_table(split, tables, options.groups), logged / TEST_ROWS, compression="zstd"
        )
        metrics = asdict(judged["judgement"].figures)
        registry.log(_parameters(report, options, seed, model), metrics, logged)
        kept = registry.home.report(version or f"refused-{run_id[:8]}")
        kept.mkdir(parents=True, exist_ok=True)
        for name in (REPORT, "report.json", PROPOSAL):
            shutil.copy(logged / name, kept / name)
        if first:
            registry.crown([version])
    if refused:
        raise NotRegistered(report, kept / REPORT)
    return replace(report, kept=kept / REPORT)


def _proposal(fitted: Fitted, report: TrainedReport, policy: Policy, text: str, base: str) -> str:
    judged, placement = fitted.validation.examples, fitted.placement
    amount = judged.column("payable_minor")
    before = outcome(
        policy.bands, fitted.probability, fitted.probability, amount,
        placement.chosen.outcome.days, policy.costs,
    )  # fmt: skip
    room = placement.chosen.reviews_per_day_at_most
    return propose(
        text, placement.chosen.outcome, before, facts=FACTS, base_currency=base,
        model_version=report.model_version or "(not registered)",
        data_until=report.training_until,
        reviews_per_day=round(room, 1) if np.isfinite(room) else None,
    )  # fmt: skip


def _parameters(
    report: TrainedReport, options: Options, seed: int, model: AbuseModel
) -> dict[str, Any]:
    return {
        **report.recipe, "trees": report.trees, "seed": seed, "base": report.base_currency,
        "maturity_days": report.maturity_days, "test_from": report.test_from,
        "train_days": options.train_days, "search_trials": options.search_trials,
        "calibrator": report.calibrator, "data_digest": model.manifest.data_digest,
        "features_hash": model.manifest.features_hash, "registered": report.model_version or "no",
    }  # fmt: skip


def _as_table(split: TimeSplit, tables: Tables, groups: tuple[str, ...]) -> pa.Table:
    """Test examples as a table: who and when, the label, groups, and the model's inputs."""
    test = split.test
    inputs = {f"feature.{name}": test.column(name) for name in MODEL_NAMES}
    weighed = _weigh(split, tables)
    if weighed is not None:
        inputs = {WEIGHT: weighed.weight, **inputs}
    named = {f"{GROUP_PREFIX}{column}": pa.array(groups_of(tables, column, test.row).tolist())
             for column in groups}  # fmt: skip
    return pa.table(
        {"refund_id": pa.array(test.refund_id.tolist()), "customer": test.customer,
         "known_at": test.known_at, "abuse": test.abuse, "basis": pa.array(test.basis.tolist()),
         **named, **inputs}
    )  # fmt: skip


def _periods(split: TimeSplit) -> dict[str, Any]:
    return {
        "training_from": day_of(split.train.known_at[0]),
        "training_until": day_of(split.train.known_at[-1]),
        "test_from": day_of(split.test_from),
        "test_until": day_of(split.test.known_at[-1]),
        "maturity_days": split.maturity_days,
        "n_train": len(split.train),
        "n_test": len(split.test),
        "n_positives_train": split.train.positives,
        "n_positives_test": split.test.positives,
        "train_labels": split.train_labels,
        "test_labels": split.test_labels,
        "label_delays": split.label_delays,
    }


def _top(model: AbuseModel, values: FloatArray, count: int = 15) -> tuple[tuple[str, float], ...]:
    weight = np.abs(values).mean(axis=0)
    return tuple((model.feature_names[i], float(weight[i]))
                 for i in np.argsort(-weight, kind="stable")[:count])  # fmt: skip


def instant_of(day: str, name: str = "test_from") -> int:
    """The epoch milliseconds at which an ISO 8601 day, or instant, begins; UTC where not said.

    >>> instant_of("1970-01-02"), instant_of("1970-01-01T01:00:00+01:00")
    (86400000, 0)
    >>> instant_of("soon")
    Traceback (most recent call last):
        ...
    ValueError: test_from: expected a day as in 2026-01-31, got 'soon'
    """
    try:
        instant = datetime.fromisoformat(day)
    except ValueError:
        raise ValueError(f"{name}: expected a day as in 2026-01-31, got {day!r}") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)


class _Stages:
    """Tells which stage begins, and how long each took."""

    def __init__(self, say: Say) -> None:
        self._say, self._started = say, time.perf_counter()
        self._begun: list[tuple[str, float]] = []

    def __call__(self, stage: str) -> None:
        self._begun.append((stage, time.perf_counter()))
        self._say(stage)

    def seconds(self) -> dict[str, float]:
        """By stage, the last up to now."""
        ends = [at for _, at in self._begun[1:]] + [time.perf_counter()]
        return {stage: end - at for (stage, at), end in zip(self._begun, ends, strict=True)}
