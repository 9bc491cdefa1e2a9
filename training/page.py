"""The page of a training run: one HTML file that needs nothing else, a manager's answers first.

`write_page` turns a `TrainedReport` and its `Picture` into HTML. What is said lies in
`training.wording`, what is drawn in `training.charts` and `training.charts_shap`, how it is laid
out in ``templates/report.html.j2``. All text is data, so it is escaped, whoever wrote it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from features.catalog import BY_NAME
from serving.pages import environment
from training import charts, charts_shap, faithfulness_text, wording
from training.baselines import SURELY, Against
from training.charts_shap import Looks
from training.evaluate import HEADLINES
from training.labels import BASES, CENSORED, CLEAN, DELAY_DAYS, IGNORED, IMMATURE, SOURCES
from training.report import Picture, TrainedReport
from training.wording import amount, capital, count, number, percent, span

TEMPLATES: Final = Path(__file__).parent / "templates"
PROPOSAL: Final = "policy-proposal.yaml"

DEPENDENCE: Final = 10
"""How many features have a plot of their own."""
MOST_ROWS: Final = 12
"""Of a long table so many rows are shown; ``report.json`` has all."""

BASIS_WORDS: Final[Mapping[str, str]] = {
    "INVESTIGATION": "investigation", "CHARGEBACK": "chargeback", "ANALYST": "analyst",
    CLEAN: "paid, and nobody said anything", CENSORED: "censored: not paid, no label",
    IMMATURE: "too young", IGNORED: "merchant's own mistake",
}  # fmt: skip
_LEFT_OUT: Final = (CENSORED, IMMATURE, IGNORED)

_CHECKS: Final[Mapping[str, str]] = {
    "separates_alone": "A feature that tells abuse by itself",
    "collapses_with_the_gap": "A score that collapses when the label gap widens",
    "shared_refunds": "Training and test that share refunds",
    "interleaved": "Training and test in one another's time",
    "future_facts": "Features computed from what came later",
}
_FATES: Final[Mapping[str, str]] = {
    "PAID": "paid, whatever was drawn", "EXPLORED": "paid by the random holdout",
    "HELD": "held, might have been explored", "NEVER_EXPLORABLE": "held, whatever was drawn",
    "UNDECIDED": "decided by another system",
}  # fmt: skip


def write_page(report: TrainedReport, picture: Picture, path: Path) -> None:
    """Write the page of a run as one file."""
    path.write_text(render(report, picture), encoding="utf-8")


def render(report: TrainedReport, picture: Picture) -> str:
    """The page of a run, as HTML."""
    currency = report.base_currency
    pages = environment(TEMPLATES)
    pages.filters |= {
        "number": number, "count": count, "percent": percent, "span": span, "capital": capital,
        "signed": wording.signed,
        "money": partial(amount, currency=currency),
    }  # fmt: skip
    return pages.get_template("report.html.j2").render(
        r=report, picture=picture, currency=currency, words=wording,
        reasons=faithfulness_text, proposal=PROPOSAL,
        **_summary(report), **_rank(report, picture), **_probabilities(report, picture),
        **_money(report), **_looks(report, picture), **_weak(report), **_data(report),
    )  # fmt: skip


# --- summary -------------------------------------------------------------------------------------


def _summary(report: TrainedReport) -> dict[str, Any]:
    return {
        "verdict": wording.verdict(report),
        "savings": wording.savings(report),
        "refunds_per_month": wording.refunds_per_month(report.outcome),
        "stopped": wording.stopped_share(report.outcome),
        "believed": wording.believed(report),
        "steps": wording.next_steps(report, PROPOSAL),
        "caveats": tuple(wording.caveats(report)),
        "proposed_bands": wording.bands_in_words(
            report.placement.bands.written(), report.base_currency
        ),
        "policy_bands": wording.bands_in_words(
            report.outcome_of_policy.policy, report.base_currency
        ),
    }


# --- rank ----------------------------------------------------------------------------------------


def _rank(report: TrainedReport, picture: Picture) -> dict[str, Any]:
    abuse = picture.split.test.abuse
    figures = report.judgement.figures
    scores = [(f"this model, AP {number(figures.average_precision)}", picture.probability, abuse)]
    found = {one.name: one for one in report.against}
    for baseline in picture.baselines:
        if baseline.name in found and not baseline.name.endswith("ip_high"):
            ap = number(found[baseline.name].baseline.average_precision)
            name = f"{wording.BASELINES.get(baseline.name, baseline.name)}, AP {ap}"
            scores.append((name, baseline.score[baseline.new], abuse[baseline.new]))
    return {
        "pr_chart": Markup(charts.precision_recall(scores, report.outcome, figures.prevalence)),
        "headlines": tuple(_headlines(report)),
        "rivals": [_rival(one) for one in report.against],
        "blueprint_unknown": wording.blueprint_unknown(report),
    }


_SHARES: Final = {
    "tpr_at_1pct_fpr": "Abuse found with 1 % of honest refunds flagged",
    "tpr_at_5pct_fpr": "Abuse found with 5 % of honest refunds flagged",
    "tpr_at_10pct_fpr": "Abuse found with 10 % of honest refunds flagged",
}


def _headlines(report: TrainedReport) -> Iterator[tuple[str, str, str, str]]:
    """What, figure, interval, and the ceiling or what would be found by chance."""
    f, intervals = report.judgement.figures, report.judgement.intervals
    refunds, cards = count(f.reviews_per_day), count(f.cards_per_day)
    said = {
        "average_precision": ("Average precision (AP)", f"chance: {number(f.prevalence)}"),
        "auc": ("AUC", "chance: 0.5"),
        **{name: (words, "") for name, words in _SHARES.items()},
        "precision_at_capacity": (
            f"Abuse among the {refunds} highest refunds of each day",
            f"at most {percent(f.precision_at_capacity_ceiling)}",
        ),
        "recall_at_capacity": (
            f"Of all abuse, found in the {refunds} highest of each day",
            f"at most {percent(f.recall_at_capacity_ceiling)}",
        ),
        "card_precision": (
            f"Abusers among the {cards} highest customers of each day not caught before",
            f"at most {percent(f.card_precision_ceiling)}",
        ),
    }
    for name in HEADLINES:
        if name in said:
            text = number if name in ("average_precision", "auc") else percent
            yield (said[name][0], text(getattr(f, name)), span(intervals.get(name), text),
                   said[name][1])  # fmt: skip


def _rival(one: Against) -> dict[str, Any]:
    gain = one.average_precision_gain
    ahead = one.model.average_precision - one.baseline.average_precision
    if one.refuses:
        verdict = "not beaten: refuses the model"
    elif gain.low > 0:
        verdict = "surely beaten"
    else:
        verdict = "ahead, not surely" if ahead > 0 else "not beaten"
    demanded = {SURELY: "must be surely beaten", "ahead": "must not be worse"}
    return {
        "name": capital(wording.BASELINES.get(one.name, one.name)), "against": one,
        "ahead": ahead, "verdict": verdict,
        "said": f"{wording.BASELINES.get(one.name, one.name)} has "
                f"{number(one.baseline.average_precision)}",
        "demand": demanded.get(one.demand, "is compared only"),
        "tone": "bad" if one.refuses else "good" if gain.low > 0 else "wait",
    }  # fmt: skip


# --- probabilities and money ---------------------------------------------------------------------


def _probabilities(report: TrainedReport, picture: Picture) -> dict[str, Any]:
    bins = charts.reliability_bins(picture.probability, picture.split.test.abuse)
    return {"reliability_chart": Markup(charts.reliability(bins)), "reliability_bins": bins}


def _money(report: TrainedReport) -> dict[str, Any]:
    placement = report.placement
    return {
        "cost_chart": Markup(
            charts.cost_curve(placement, report.outcome, report.base_currency)
        ),
        "outcomes": [
            ("Pay every refund", report.outcome_of_paying_all),
            (f"This model, bands of policy {report.policy_version}", report.outcome_of_policy),
            ("This model, proposed bands", report.outcome),
        ],
        "desks": [
            ("One reviewer fewer", placement.one_fewer.point, placement.one_fewer),
            ("As proposed", placement.chosen, None),
            ("One reviewer more", placement.one_more.point, placement.one_more),
        ],
    }  # fmt: skip


# --- what it looks at, where it is weak ----------------------------------------------------------


def _looks(report: TrainedReport, picture: Picture) -> dict[str, Any]:
    looks = Looks(
        picture.manifest.feature_names, picture.values, picture.rows, report.base_currency
    )
    weight = np.abs(picture.values).mean(axis=0)
    drift = {one.name: one for one in report.drift.features}
    shown = []
    for place in looks.order()[: charts_shap.SWARM]:
        name = looks.names[place]
        feature = BY_NAME.get(name)
        shown.append({
            "name": name, "sentence": capital(wording.feature_sentence(name)),
            "why": feature.why if feature else "", "weight": float(weight[place]),
            "reason": feature.reason_code if feature else wording.NOT_KNOWN,
            "drift": drift.get(name), "place": place,
        })  # fmt: skip
    return {
        "swarm_chart": Markup(charts_shap.beeswarm(looks)),
        "looks": shown,
        "dependence": [_dependence(looks, one) for one in shown[:DEPENDENCE]],
        "n_explained": len(picture.rows),
    }


def _dependence(looks: Looks, shown: Mapping[str, Any]) -> dict[str, Any]:
    by = charts_shap.partner(looks, shown["place"])
    colour = None
    if by is not None:
        unit = wording.feature_unit(looks.names[by], looks.currency)
        colour = f"{wording.feature_sentence(looks.names[by])} ({unit})"
    drawn = charts_shap.dependence(looks, shown["place"], by)
    return {
        **shown, "colour": colour, "chart": Markup(drawn),
        "unknown_share": float(np.isnan(looks.rows[:, shown["place"]]).mean()),
        "unit": wording.feature_unit(shown["name"], looks.currency),
    }  # fmt: skip


def _weak(report: TrainedReport) -> dict[str, Any]:
    divisions: dict[str, list[Any]] = defaultdict(list)
    for segment in report.segments:
        divisions[segment.by].append(segment)
    return {"divisions": dict(divisions)}


# --- data ----------------------------------------------------------------------------------------


def _data(report: TrainedReport) -> dict[str, Any]:
    return {
        "labels": [_labels_of(report, basis) for basis in BASES],
        "months": tuple(_months(report.label_delays)),
        "bases": [(basis, BASIS_WORDS[basis]) for basis in BASES],
        "delays": tuple(_delays(report.label_delays)),
        "delay_days": DELAY_DAYS,
        "growth_chart": Markup(charts.growth(report.validation["curve"], report.trees)),
        "trials": sorted(report.trials, key=lambda one: -one["average_precision"])[:MOST_ROWS],
        "drifts": report.drift.features[:MOST_ROWS],
        "checks": [
            {"title": _CHECKS.get(one.looked_for, one.looked_for), "says": capital(one.says),
             "figures": {key.replace("_", " "): value for key, value in one.figures.items()}}
            for one in report.leaks.checks
        ],
        "fates": _FATES,
        "weighted_rows": tuple(_weighted(report)),
    }  # fmt: skip


def _labels_of(report: TrainedReport, basis: str) -> dict[str, Any]:
    nothing = {"refunds": 0, "abuse": 0}
    return {
        "name": capital(BASIS_WORDS[basis]), "left_out": basis in _LEFT_OUT,
        "train": report.train_labels.get(basis, nothing),
        "test": report.test_labels.get(basis, nothing),
    }  # fmt: skip


def _months(delays: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """By month of request: refunds by basis and their share of the basis' largest month, in all."""
    most: dict[str, int] = defaultdict(int)
    for row in delays:
        most[row["basis"]] = max(most[row["basis"]], row["refunds"])
    for month in sorted({row["month"] for row in delays}):
        rows = {row["basis"]: row for row in delays if row["month"] == month}
        yield {
            "month": month,
            "by": {basis: (row["refunds"], row["refunds"] / most[basis])
                   for basis, row in rows.items()},
            "refunds": sum(row["refunds"] for row in rows.values()),
            "abuse": sum(row["abuse"] for row in rows.values()),
        }  # fmt: skip


def _delays(delays: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """By source: how many verdicts, and the share that took so long."""
    classes = (*(f"within_{days}d" for days in DELAY_DAYS), "later")
    for source in SOURCES:
        rows = [row for row in delays if row["basis"] == source and row["later"] is not None]
        sums = [sum(row[name] for row in rows) for name in classes]
        if total := sum(sums):
            yield {"name": capital(BASIS_WORDS[source]), "verdicts": total,
                   "shares": [one / total for one in sums]}  # fmt: skip


def _weighted(report: TrainedReport) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Headlines as labelled, and weighted by inverse propensity, both with intervals."""
    judged = report.weighted and report.weighted["judgement"]
    if not judged:
        return
    names: Mapping[str, tuple[str, Any]] = {
        "average_precision": ("Average precision (AP)", number), "auc": ("AUC", number),
        **{name: (words, percent) for name, words in _SHARES.items()},
        "calibration_slope": ("Calibration slope", number),
        "cost_per_1000_minor": (
            "Cost of 1,000 refunds, proposed bands",
            partial(amount, currency=report.base_currency),
        ),
    }  # fmt: skip
    naive = report.judgement
    for name, (words, text) in names.items():
        yield words, (
            text(getattr(naive.figures, name)), span(naive.intervals.get(name), text),
            text(judged[name]), span(judged["intervals"].get(name), text),
        )  # fmt: skip
