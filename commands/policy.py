"""The policy: written, checked, tried on history, put in force, and taken back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from commands import policy_reports
from commands.shared import (
    AsJson,
    By,
    ModeOption,
    Since,
    Until,
    asking,
    instant,
    note,
    now_ms,
    person,
    policy_named,
    print_json,
    refuse,
    said,
    settings_of,
    shown_time,
    store_of,
)

app = typer.Typer(no_args_is_help=True, help="The policy: check, add, activate, judge.")
app.add_typer(policy_reports.app)

Note = Annotated[str | None, typer.Option("--note", help="Why; kept for ever.")]
PolicyName = Annotated[str, typer.Argument(help="A file, or a version that the store has.")]


@app.command("check")
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The policy that comes with Recourse when not given.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Its predecessor, a file or a version: what changed, and whether each "
                          "changed rule's version rose."),
    ] = None,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Check a policy and run its examples; every problem is printed at once, with its remedy.

    Example: `recourse policy check rules/policies/default.yaml`
    """
    from rules.advice import warnings
    from rules.changes import changes
    from rules.diagnostics import render
    from rules.policy import Policy, PolicyError, policy_text
    from rules.succession import succession_problems
    from serving.facts import FACTS, WORDS
    from serving.governance import check_succession
    from serving.policies import DEFAULT_POLICY

    path = file or settings_of().policy or DEFAULT_POLICY
    text = policy_text(path)
    try:
        loaded = Policy.from_yaml(text, facts=FACTS)
        before = policy_named(against, mode) if against else None
        if before and (problems := succession_problems(before, loaded)):
            raise PolicyError(problems)
        if against and not Path(against).exists():  # in the store: all that decided there counts
            with store_of(mode) as store:
                check_succession(store, loaded)
    except PolicyError as error:
        if as_json:
            print_json({"ok": False, "problems": [asdict(problem) for problem in error.problems]})
            raise typer.Exit(1) from error
        refuse(render(error.problems, text, str(path)))
    changed = changes(before, loaded) if before else ()
    doubts = warnings(loaded, WORDS)
    if as_json:
        print_json({"ok": True, "version": loaded.version, "hash": loaded.hash,
                    "changes": [change.to_text() for change in changed],
                    "warnings": [asdict(doubt) for doubt in doubts]})  # fmt: skip
        return
    print(f"policy {loaded.version}: {len(loaded.rules)} rules, hash {loaded.hash}")
    for change in changed:
        print(f"  {change.to_text()}")
    if doubts:
        note.print(render(doubts, text, str(path)), markup=False, highlight=False)


@app.command("schema")
def schema(
    out: Annotated[
        Path | None, typer.Option(help="Where to write; standard output when not given.")
    ] = None,
) -> None:
    """Write the JSON Schema of a policy document, for editors.

    Example: `recourse policy schema`
    """
    from rules.schema import json_schema
    from serving.facts import FACTS, MEANING

    says = {name: meaning.says for name, meaning in MEANING.items()}
    document = json.dumps(json_schema(FACTS, says), indent=2) + "\n"
    if out is None:
        print(document, end="")
    else:
        out.write_text(document, encoding="utf-8")


@app.command("facts")
def facts(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only facts whose name or meaning holds them all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the facts that conditions may read: name, kind and meaning.

    Example: `recourse policy facts empty box`
    """
    from rules.condition import nearest
    from serving.facts import MEANING

    wanted = [word.lower() for word in words or ()]
    found = [
        {"name": name, "kind": meaning.kind, "unit": meaning.unit, "meaning": meaning.says}
        for name, meaning in sorted(MEANING.items())
        if all(word in f"{name} {meaning.says}".lower() for word in wanted)
    ]
    if not found:
        spoken = {part for name in MEANING for part in name.split("_")}
        hints = [near for word in wanted if (near := nearest(word, spoken)) and near != word]
        refuse(f"no fact holds {' and '.join(map(repr, wanted))}"
               + (f"; did you mean {' '.join(hints)}?" if hints else ""))  # fmt: skip
    if as_json:
        print_json(found)
        return
    for fact in found:
        print(f"  {fact['name']:<58} {fact['kind']:<8} {fact['meaning']}")


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A policy document.")],
    by: By = None,
    why: Note = None,
    mode: ModeOption = "live",
) -> None:
    """Keep a policy in the store as a new version; it does not act before it is activated.

    Example: `recourse policy add new.yaml --by ann --note "hold repeated empty boxes"`
    """
    from rules.changes import changes
    from rules.diagnostics import render
    from rules.policy import Policy, PolicyError, policy_text
    from serving import governance
    from serving.facts import FACTS

    text = policy_text(file)
    with store_of(mode) as store:
        try:
            kept = governance.propose(
                store, text, author=person(by), note=why, at=now_ms(), via=asking()
            )
        except PolicyError as error:
            refuse(render(error.problems, text, str(file)))
        active = store.active_policy()
    print(f"policy {kept.version} is kept, by {kept.author}: hash {kept.hash}")
    if active is not None and active.hash != kept.hash:
        print(f"against version {active.version}, which is in force:")
        before = Policy.from_yaml(active.text, facts=FACTS)
        found = changes(before, Policy.from_yaml(kept.text, facts=FACTS))
        for sentence in [change.to_text() for change in found] or ["nothing changes"]:
            print(f"  {sentence}")


@app.command("list")
def list_versions(mode: ModeOption = "live", as_json: AsJson = False) -> None:
    """List the versions of the policy, and what was put in force when and by whom.

    Example: `recourse policy list`
    """
    with store_of(mode) as store:
        versions, acts, active = (
            store.policy_versions(), store.policy_acts(), store.active_policy(),
        )  # fmt: skip
    in_force = active.hash if active else None
    if as_json:
        print_json({
            "versions": [
                {"version": v.version, "hash": v.hash, "author": v.author, "note": v.note,
                 "created_at": v.created_at, "in_force": v.hash == in_force} for v in versions
            ],
            "acts": [
                {"at": act.at, "act": act.act, "hash": act.hash, "replaced": act.replaced,
                 "actor": act.actor, "note": act.note} for act in acts
            ],
        })  # fmt: skip
        return
    named = {version.hash: version.version for version in versions}
    for version in versions:
        mark = "in force" if version.hash == in_force else ""
        why_said = f"  {version.note}" if version.note else ""
        print(f"  {version.version:<12} {version.hash[:12]}  {shown_time(version.created_at)}  "
              f"{version.author:<16} {mark:<8}{why_said}")  # fmt: skip
    if acts:
        print("put in force:")
    for act in acts:
        place = f" in place of {named[act.replaced]}" if act.replaced else ""
        why_said = f"  {act.note}" if act.note else ""
        print(f"  {shown_time(act.at)}  {named[act.hash]} {act.act.replace('_', ' ')}"
              f" by {act.actor}"
              f"{place}{why_said}")  # fmt: skip
    if not versions:
        note.print(f"the {mode} store has no policy yet: the first start of the service makes one")


@app.command("show")
def show(
    version: Annotated[str | None, typer.Argument(help="The one in force when not given.")] = None,
    mode: ModeOption = "live",
) -> None:
    """Print the document of a version, as it was given.

    Example: `recourse policy show`
    """
    from serving.policies import policy_in_force

    if version is None:
        print(policy_in_force(settings_of(), mode).text, end="")
        return
    print(policy_named(version, mode).text, end="")


@app.command("diff")
def diff(
    before: PolicyName,
    after: PolicyName,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Say in sentences what changes from one policy to another.

    Example: `recourse policy diff rules/policies/default.yaml rules/policies/default.yaml`
    """
    from rules.changes import changes

    found = [
        change.to_text()
        for change in changes(policy_named(before, mode), policy_named(after, mode))
    ]
    if as_json:
        print_json(found)
        return
    for sentence in found:
        print(f"  {sentence}")
    if not found:
        print("nothing changes")


@app.command("activate")
def activate(
    version: Annotated[str, typer.Argument(help="A version that the store has.")],
    by: By = None,
    why: Note = None,
    mode: ModeOption = "live",
) -> None:
    """Put a version in force; a running service takes it up within seconds.

    With RECOURSE_POLICY_SECOND_PERSON its author alone cannot.

    Example: `recourse policy activate 2 --by bob --note "backtest read, 4 more reviews a day"`
    """
    from serving import governance
    from serving.governance import ActivationRefused

    settings = settings_of()
    with store_of(mode) as store:
        try:
            act = governance.activate(
                store, version, actor=person(by), at=now_ms(),
                second_person=settings.policy_second_person, note=why, via=asking(),
            )  # fmt: skip
        except (LookupError, ActivationRefused) as error:
            refuse(said(error))
        replaced = store.policy_by_hash(act.replaced) if act.replaced else None
    place = f" in place of {replaced.version}" if replaced else ""
    print(f"policy {version} is in force{place}, by {act.actor}")


@app.command("rollback")
def rollback(
    to: Annotated[
        str | None, typer.Option(help="A version that was in force; the last one when not given.")
    ] = None,
    by: By = None,
    why: Note = None,
    mode: ModeOption = "live",
) -> None:
    """Put the version that was in force before in force again.

    Example: `recourse policy rollback --by bob --note "too many reviews"`
    """
    from serving import governance
    from serving.governance import ActivationRefused

    with store_of(mode) as store:
        try:
            act = governance.roll_back(
                store, actor=person(by), at=now_ms(), to=to, note=why, via=asking()
            )
        except (LookupError, ActivationRefused) as error:
            refuse(said(error))
        kept = store.policy_by_hash(act.hash)
    print(f"policy {kept.version if kept else act.hash} is in force again, by {act.actor}")


@app.command("recompute")
def recompute(
    since: Since = None, until: Until = None, mode: ModeOption = "live", as_json: AsJson = False
) -> None:
    """Decide every logged decision again from its record and its policy: the same action each time.

    Exit code 1 when one differs.

    Example: `recourse policy recompute --since 2026-07-01T00:00:00Z`
    """
    from serving.recompute import recompute as recomputed

    first, last = instant(since, "--since"), instant(until, "--until")
    with store_of(mode) as store:
        found = recomputed(store, since=first, until=last)
    if as_json:
        print_json(found.to_json())
    else:
        print(found.to_text())
    if found.same != found.decisions:
        refuse(f"the {mode} store: {found.decisions - found.same:,} of {found.decisions:,} "
               "decisions come out differently; expected none")  # fmt: skip
