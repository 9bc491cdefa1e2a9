"""Models: train, promote, evaluate, score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from commands.shared import (
    AsJson,
    DataDir,
    OutFile,
    champion_of,
    instant,
    print_json,
    print_table,
    progress_of,
    read_with_rates,
    refuse,
    settings_of,
)

app = typer.Typer()


@app.command()
def train(
    data: DataDir,
    test_from: Annotated[str | None, typer.Option(help="First day of the test, ISO 8601.")] = None,
    test_until: Annotated[
        str | None, typer.Option(help="First day after the test; the data's end when not given.")
    ] = None,
    maturity_days: Annotated[int, typer.Option(min=1, help="When a label is mature.")] = 60,
    train_days: Annotated[
        int | None, typer.Option(min=1, help="Learn from the latest so many days alone.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=1, max=20, help="Prequential folds; fewer where abuse is rare.")
    ] = 4,
    fold_days: Annotated[
        int | None, typer.Option(min=1, help="How long a fold is; they share 40 % by default.")
    ] = None,
    search: Annotated[
        int, typer.Option(min=0, help="How many recipes to try beside the usual one.")
    ] = 0,
    max_bin: Annotated[
        int, typer.Option(min=2, max=65_535, help="How finely numbers are told apart.")
    ] = 255,
    class_weight: Annotated[
        Literal["none", "balanced"], typer.Option(help="Weigh both classes alike, or as they are.")
    ] = "none",
    monotone: Annotated[
        bool, typer.Option("--monotone", help="Hold what speaks of abuse to one direction.")
    ] = False,
    codes_as_numbers: Annotated[
        bool, typer.Option("--codes-as-numbers", help="Split codes by order, not by sets.")
    ] = False,
    policy_file: Annotated[
        Path | None,
        typer.Option("--policy", help="Whose costs decide; the live store's when not given."),
    ] = None,
    reviews_per_day: Annotated[
        float | None, typer.Option(min=0, help="What the review desk can take.")
    ] = None,
    reviews_per_reviewer: Annotated[
        float, typer.Option(min=0, help="What one reviewer takes a day.")
    ] = 60.0,
    group: Annotated[
        list[str] | None,
        typer.Option(help="A column of refund_requests to compare FPR between; may be repeated."),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A suspect of the leak detector that is none; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and data, same model.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train on mature labels and report the out-of-time test; the first model is served at once.

    Exit code 1 where the model is not registered: its report says why.

    Example: `recourse train --data data/sample --maturity-days 30`
    """
    from rules.policy import load_policy
    from serving.facts import FACTS
    from serving.policies import policy_in_force
    from training.recipe import Recipe
    from training.train import NotRegistered, Options, instant_of
    from training.train import train as trained

    times: dict[str, int | None] = {}
    for name, day in (("test_from", test_from), ("test_until", test_until)):
        try:
            times[name] = None if day is None else instant_of(day, name)
        except ValueError as error:
            raise typer.BadParameter(
                str(error), param_hint=f"--{name.replace('_', '-')}"
            ) from error
    settings = settings_of()
    policy = (
        policy_in_force(settings, "live") if policy_file is None
        else load_policy(policy_file, FACTS)
    )  # fmt: skip
    try:
        options = Options(
            **times, maturity_days=maturity_days, train_days=train_days, folds=folds,
            fold_days=fold_days, search_trials=search, trusted=frozenset(trust or ()),
            groups=tuple(group or ()), reviews_per_day=reviews_per_day,
            reviews_per_reviewer_per_day=reviews_per_reviewer,
            recipe=Recipe(max_bin=max_bin, class_weight=class_weight, monotone=monotone,
                          categorical=not codes_as_numbers),
        )  # fmt: skip
        tables = read_with_rates(data, settings.base_currency)
        with progress_of("training") as progress:
            report = trained(
                tables, home=settings.home, options=options, seed=seed,
                base=settings.base_currency, policy=policy, progress=progress,
            )  # fmt: skip
    except NotRegistered as refused:
        if as_json:
            print_json(refused.report.to_json())
        else:
            print(refused.report.summary())
        refuse(str(refused))
    except ValueError as error:
        refuse(str(error))
    if as_json:
        print_json(report.to_json())
    else:
        print(report.summary())


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="The latest when not given.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    back: Annotated[
        bool, typer.Option("--rollback", help="Back to whom the champion replaced, no gate.")
    ] = False,
    fpr_ratio_at_least: Annotated[
        float, typer.Option(min=0, max=1, help="How even the groups named at training must be.")
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Make a registered version the champion, if it passes the gate; every objection is listed.

    Example: `recourse promote 2 --yes`
    """
    from serving.policies import policy_in_force
    from training.gate import Bounds
    from training.promote import PromotionRefused, rollback
    from training.promote import promote as promoted

    settings = settings_of()
    home = settings.home
    wanted = "the version before the champion" if back else f"version {version or '(the latest)'}"
    if not yes:
        typer.confirm(f"Judge and serve {wanted}?", abort=True, err=True)
    try:
        done = rollback(home=home) if back else promoted(
            version, home=home, policy=policy_in_force(settings, "live"),
            bounds=Bounds(fpr_ratio_at_least=fpr_ratio_at_least),
        )  # fmt: skip
    except LookupError as error:
        refuse(str(error))
    except PromotionRefused as refused:
        if as_json:
            compared = refused.comparison
            print_json({"version": refused.version, "reasons": list(refused.reasons),
                    "comparison": None if compared is None else compared.to_json()})  # fmt: skip
        refuse(str(refused))
    if as_json:
        print_json(done.to_json())
        return
    print(f"version {done.version} is champion now, in place of {done.replaced or 'none'}")
    if (found := done.comparison) is not None:
        saving = f"{found.saving.low:+,.0f} to {found.saving.high:+,.0f}"
        print(f"average precision gained: {found.gain.low:+.4f} to {found.gain.high:+.4f} (95 %)")
        print(f"saved on 1,000 refunds: {saving} minor units (95 %)")
        for said in found.notes:
            print(f"note: {said}")


@app.command()
def evaluate(
    data: DataDir,
    model: Annotated[
        str | None,
        typer.Option(help="A model's directory or MLflow address; the served one when not given."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Requested then or later; what is new to the model.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Requested before; ISO 8601.")] = None,
    maturity_days: Annotated[
        int | None, typer.Option(min=1, help="When a label is mature; as the model's own were.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write each refund's probability and label.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Judge a model on mature labels that are new to it: figures with their 95 % intervals.

    Example: `recourse evaluate --data data/sample --maturity-days 30`
    """
    import pyarrow.parquet as pq

    from serving.policies import policy_in_force
    from training.evaluation import evaluate_folder

    first, last = instant(since, "--since"), instant(until, "--until")
    settings = settings_of()
    policy = policy_in_force(settings, "live")
    try:
        found = evaluate_folder(
            read_with_rates(data, settings.base_currency), champion_of(model).model,
            bands=policy.bands, costs=policy.costs, since=first, until=last,
            maturity_days=maturity_days, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    if out is not None:
        pq.write_table(found.scores, out)
    if as_json:
        print_json(found.to_json())
        return
    print(f"refunds of {found.since} to {found.until}")
    intervals = found.judgement.intervals
    for name, value in found.judgement.figures.to_json().items():
        between = intervals.get(name)
        span = f"  ({between.low:,.4f} to {between.high:,.4f})" if between else ""
        shown = "not known" if value is None else f"{value:,.4f}"
        print(f"  {name:<32} {shown:>12}{span}")


@app.command()
def score(
    data: DataDir,
    out: OutFile,
    model: Annotated[
        str | None,
        typer.Option(help="A model's directory or MLflow address; the served one when not given."),
    ] = None,
) -> None:
    """Score a data folder as the service would: probability, action, reasons.

    Example: `recourse score --data data/sample --model models:/refund-abuse@champion
    --out scores.parquet`
    """
    from serving.batch import score_folder
    from serving.policies import policy_in_force
    from training.dataset import rates_of

    settings = settings_of()
    tables = read_with_rates(data, settings.base_currency)
    with progress_of("scoring") as progress:
        actions = score_folder(
            tables, champion_of(model), policy_in_force(settings, "live"),
            rates_of(tables, settings.base_currency), out, progress,
        )  # fmt: skip
    print_table(actions.items())
