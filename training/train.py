"""Train: a data folder in, a tested and registered model out, or every reason why not.

Split in time, look for leaks, fit (`training.fit`), and only then look at the out-of-time test:
figures with intervals, segments, groups, what the bands cost, and the baselines that a model must
beat. A model with a leak, or one that beats too little, is not registered; its report is kept all
the same, for it says why. No resampling anywhere: it raises AUC and lowers AP.
"""

from __future__ import annotations

import json
import math
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

from features.money import DAY_MS, Rates
from features.tables import Tables
from rules.document import Band, Costs
from rules.policy import Policy, load_policy
from serving.facts import FACTS
from serving.home import Home
from serving.model import AbuseModel
from training.bands import Bands, Outcome, actions, default_policy_path, outcome
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
    FeatureFrame,
    TimeSplit,
    TooLittleData,
    data_digest,
    day_of,
    feature_frame,
    rates_of,
    training_frame,
    without_rate,
)
from training.drift import drift
from training.evaluate import Truth, judge
from training.evaluation import weigh_labelled, weighted_judgement
from training.fairness import Fairness, fairness, groups_of
from training.faithfulness import faithfulness
from training.faithfulness_text import doubts as doubts_of_reasons
from training.fit import Fitted, check_split, fit, sizes
from training.labels import DEFAULT_MATURITY_DAYS
from training.leaks import LeakReport, check_trusted, find_leaks
from training.propensity import Weighted
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

    def __post_init__(self) -> None:
        for name in ("reviews_per_day", "reviews_per_reviewer_per_day"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")


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
    policy: Policy | None = None,
    progress: Progress = lambda done, total: None,
    say: Say = lambda stage: None,
) -> TrainedReport:
    """Train on a canonical data folder, test out of time, register; the first model is served.

    ``policy`` is the one whose costs decide and whose bands the proposal replaces, by default the
    one that comes with Recourse. All is written below ``home`` (RECOURSE_HOME), the
    report and the proposal also as ``home/reports/<version>``. ``say`` is told of each stage,
    ``progress`` of the trees, or of the trials of a search.

    Raises NotRegistered, and TooLittleData where the folder has too few mature labels.
    """
    from training.registry import Registry  # imports MLflow, which costs seconds

    options = options or Options()
    policy = policy or load_policy(default_policy_path(), FACTS)
    costs = policy.costs
    if options.reviews_per_day is not None:
        costs = costs.model_copy(update={"reviews_per_day": options.reviews_per_day})
    _check_before(tables, options)
    registry = Registry(Home(home))
    clock = _Stages(say)
    rates = rates_of(tables, base)
    clock("features and labels")
    frame = feature_frame(tables, rates)
    if np.isnan(frame.columns["payable_minor"]).all():
        raise TooLittleData(
            f"no amount is known in {base}: {'; '.join(without_rate(tables, rates))}"
        )
    split = _split(tables, rates, frame, options)
    clock("leaks")
    leaks = find_leaks(split, tables, rates, trusted=options.trusted, seed=seed)
    clock("trees")
    fitted = fit(
        split, seed=seed, base=base, costs=costs, digest=data_digest(tables),
        recipe=options.recipe, search_trials=options.search_trials,
        reviews_per_reviewer_per_day=options.reviews_per_reviewer_per_day, progress=progress,
    )  # fmt: skip
    clock("test")
    rivals = baselines(split.train, split.test, champion=registry.usable_champion())
    weighed = weigh_labelled(split.test, tables)
    judged = judge_on_test(
        fitted, split, tables, policy.bands, costs, options, leaks, rivals, weighed, seed
    )
    model = replace(
        fitted.model,
        manifest=replace(fitted.model.manifest, metrics=judged["judgement"].figures.to_json()),
    )
    clock("report")
    return _keep(
        registry, model, fitted, split, tables, judged, rivals, weighed, clock,
        options=options, seed=seed, base=base, policy=policy, costs=costs,
    )  # fmt: skip


def _check_before(tables: Tables, options: Options) -> None:
    """Refuse what needs no training to be refused."""
    for column in options.groups:
        groups_of(tables, column, np.arange(tables["refund_requests"].num_rows))
    check_trusted(options.trusted, MODEL_NAMES)


def _split(tables: Tables, rates: Rates, frame: FeatureFrame, options: Options) -> TimeSplit:
    """The split in time, with enough abuse in each of its parts."""
    try:
        split = training_frame(
            tables, rates, test_from=options.test_from, test_until=options.test_until,
            maturity_days=options.maturity_days, train_days=options.train_days,
            folds=options.folds, fold_days=options.fold_days, features=frame,
        )  # fmt: skip
        check_split(split)
    except TooLittleData as error:
        given = {name: getattr(options, name) for name in ("train_days", "fold_days")}
        said = [f"{name} {value}" for name, value in given.items() if value is not None]
        said += [f"no table of {name}" for name in ("labels", "disputes") if name not in tables]
        about = f" (with {', '.join(said)})" if said else ""
        raise TooLittleData(f"{error}{about}") from error
    return split


def judge_on_test(
    fitted: Fitted, split: TimeSplit, tables: Tables, policy_bands: Sequence[Band], costs: Costs,
    options: Options, leaks: LeakReport, rivals: Sequence[Baseline], weighed: Weighted | None,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Everything that a report says of the test, by the names of `TrainedReport`."""
    test, placement = split.test, fitted.placement
    probability = fitted.model.predict(test.inputs)
    truth = Truth.of(test)
    desk = Desk(reviews_per_day=costs.reviews_per_day)
    bands = placement.bands.written()
    compared = against(probability, truth, rivals, desk=desk, seed=seed)
    scored = blueprint(test)
    refusals = [*(leak.says for leak in leaks.leaks), *beats(compared)]
    loss = probability * (truth.amount_minor + costs.fee_minor)
    reasons = faithfulness(fitted.model, test, actions(bands, probability, loss) > 0, seed=seed)

    def led_to(which: Bands | Sequence[Band]) -> Outcome:
        return outcome(
            which, probability, test.abuse, truth.amount_minor, _days(split), costs,
            known_at=test.known_at, reviews_per_day=placement.chosen.reviews_per_day_at_most,
        )  # fmt: skip

    return {
        "refusals": tuple(refusals),
        "doubts": (*doubts(compared), *doubts_of_reasons(reasons)),
        "leaks": leaks,
        "judgement": judge(probability, truth, desk=desk, bands=bands, costs=costs, seed=seed),
        "weighted": weighted_judgement(
            weighed, probability, test, desk=desk, bands=bands, costs=costs, seed=seed
        ),
        "against": compared,
        "blueprint_unknown": dict(scored.unknown),
        "blueprint_costs": blueprint_costs(scored, truth, costs),
        "outcome": led_to(placement.bands),
        "outcome_of_policy": led_to(policy_bands),
        "outcome_of_paying_all": led_to(()),
        "segments": segments(probability, test, seed=seed),
        "fairness": _fairness(probability, split, tables, options.groups, seed),
        "drift": drift(split.train, test, probability, fitted, seed=seed),
        "faithfulness": reasons,
        "sizes": sizes(fitted, test.inputs[:TIMED]),
    }


TIMED: Final = 100


def _days(split: TimeSplit) -> float:
    return float(split.test.known_at[-1] - split.test_from + 1) / DAY_MS


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


def _keep(
    registry: Any, model: AbuseModel, fitted: Fitted, split: TimeSplit, tables: Tables,
    judged: Mapping[str, Any], rivals: Sequence[Baseline], weighed: Weighted | None,
    clock: _Stages, *, options: Options, seed: int, base: str, policy: Policy, costs: Costs,
) -> TrainedReport:  # fmt: skip
    """Log the run with all it found, and register the model unless something speaks against it.

    The registry hears of the model when its run has what promotion needs, and forgets it again
    when what follows fails or is interrupted.
    """
    from training.page import write_page  # imports matplotlib and shap

    refused = bool(judged["refusals"])
    with TemporaryDirectory() as scratch, registry.run() as run_id:
        directory, logged = Path(scratch) / "abuse_model", Path(scratch) / "logged"
        logged.mkdir()
        model.save(directory)
        values, rows = contributions(model, split.test)
        test_rows = _as_table(split, tables, options.groups, weighed)
        pq.write_table(test_rows, logged / TEST_ROWS, compression="zstd")
        metrics = asdict(judged["judgement"].figures)
        registry.log(_parameters(fitted, split, options, seed, model), metrics, logged)
        with registry.registered(None if refused else directory, model) as version:
            first = version is not None and registry.champion() is None
            report = TrainedReport(
                model_version=version, champion=first, run_id=run_id, base_currency=base,
                policy_version=policy.version, **_periods(split), **judged,
                recipe=fitted.validation.recipe.to_json(), trees=fitted.trees,
                validation=fitted.validation.to_json(), trials=fitted.trials,
                calibrator=fitted.calibration.calibrator.kind,
                calibration_trials=fitted.calibration.trials, placement=fitted.placement,
                costs=costs, top_features=_top(model, values), seconds=clock.seconds(),
            )  # fmt: skip
            document = json.dumps(report.to_json(), indent=2, allow_nan=False)
            (logged / "report.json").write_text(document, encoding="utf-8")
            proposal = _proposal(fitted, report, policy, costs, base)
            (logged / PROPOSAL).write_text(proposal, encoding="utf-8")
            picture = Picture(
                split, model.predict(split.test.inputs), values, rows, tuple(rivals),
                model.manifest, seed,
            )  # fmt: skip
            write_page(report, picture, logged / REPORT)
            registry.log({"registered": version or "no"}, {}, logged)
            kept = registry.home.report(version or f"refused-{run_id[:8]}")
            kept.mkdir(parents=True, exist_ok=True)
            for name in (REPORT, "report.json", PROPOSAL):
                shutil.copy(logged / name, kept / name)
            if first:
                registry.crown([version])
    if refused:
        raise NotRegistered(report, kept / REPORT)
    return replace(report, kept=kept / REPORT)


def _proposal(
    fitted: Fitted, report: TrainedReport, policy: Policy, costs: Costs, base: str
) -> str:
    judged, placement = fitted.validation.examples, fitted.placement
    before = outcome(
        policy.bands, fitted.probability, fitted.probability, judged.column("payable_minor"),
        placement.chosen.outcome.days, costs,
    )  # fmt: skip
    return propose(
        policy.text, placement.chosen.outcome, before, facts=FACTS, base_currency=base,
        model_version=report.model_version or "(not registered)",
        data_until=report.training_until, reviews_per_day=costs.reviews_per_day,
    )  # fmt: skip


def _parameters(
    fitted: Fitted, split: TimeSplit, options: Options, seed: int, model: AbuseModel
) -> dict[str, Any]:
    manifest = model.manifest
    return {
        **fitted.validation.recipe.to_json(), "trees": fitted.trees, "seed": seed,
        "base": manifest.base_currency, "maturity_days": split.maturity_days,
        "test_from": day_of(split.test_from), "train_days": options.train_days,
        "search_trials": options.search_trials,
        "calibrator": fitted.calibration.calibrator.kind, "data_digest": manifest.data_digest,
        "features_hash": manifest.features_hash,
    }  # fmt: skip


def _as_table(
    split: TimeSplit, tables: Tables, groups: tuple[str, ...], weighed: Weighted | None
) -> pa.Table:
    """Test examples as a table: who and when, the label, groups, and the model's inputs."""
    test = split.test
    inputs = {f"feature.{name}": test.column(name) for name in MODEL_NAMES}
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
