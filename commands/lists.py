"""The block and allow lists: add, remove, show, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from commands.shared import (
    AsJson,
    By,
    ModeOption,
    asking,
    instant,
    note,
    now_ms,
    person,
    print_json,
    refuse,
    settings_of,
    shown_time,
    store_of,
)

app = typer.Typer(no_args_is_help=True, help="The block and allow lists.")

ListName = Annotated[Literal["block", "allow"], typer.Argument(help="block or allow.")]
Entity = Annotated[
    str, typer.Argument(help="customer, device, payment_method, address, ip or email.")
]
Id = Annotated[str, typer.Argument(help="The entity's id, as requests name it.")]

MOST_AT_ONCE = 1_000
"""How many entries are read from the store at a time."""


@app.command("add")
def add(
    name: ListName,
    entity: Entity,
    entity_id: Id,
    reason: Annotated[str, typer.Option(help="Why; it is told with each decision.")],
    expires: Annotated[
        str | None, typer.Option(help="From then on it counts no more; ISO 8601.")
    ] = None,
    by: By = None,
    mode: ModeOption = "live",
) -> None:
    """Put an entity on a list, or renew its entry; it counts from the next decision on.

    Example: `recourse lists add block device dev-1 --reason "ring of June" --by ann`
    """
    from serving import listing
    from serving.policies import policy_in_force

    at = now_ms()
    with store_of(mode) as store:
        try:
            entry = listing.Entry.of(entity, entity_id, reason, instant(expires, "--expires"), at)
        except ValueError as error:
            refuse(str(error))
        listing.put(store, name, [entry], author=person(by), at=at, via=asking())
    until = f" until {shown_time(entry.expires_at)}" if entry.expires_at else ""
    print(f"{entity} {entity_id} is on the {name} list{until}")
    if entity not in getattr(policy_in_force(settings_of(), mode).lists, name):
        note.print(f"the policy in force does not count entries of {entity} on the {name} list: "
                   "see its lists", markup=False)  # fmt: skip


@app.command("remove")
def remove(
    name: ListName, entity: Entity, entity_id: Id, by: By = None, mode: ModeOption = "live"
) -> None:
    """Take an entity off a list.

    Example: `recourse lists remove block device dev-1 --by ann`
    """
    from serving import listing

    with store_of(mode) as store:
        try:
            was_there = listing.take_off(
                store, name, entity, entity_id, actor=person(by), at=now_ms(), via=asking()
            )
        except ValueError as error:
            refuse(str(error))
    if not was_there:
        refuse(f"{entity} {entity_id}: not on the {name} list of the {mode} store")
    print(f"{entity} {entity_id} is off the {name} list")


@app.command("show")
def show(
    name: ListName,
    entity: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Expired entries too.")] = False,
    by: By = None,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Show the entries of a list with their original ids, which is recorded.

    Example: `recourse lists show block --entity device`
    """
    from features.events import ENTITIES
    from rules.condition import nearest
    from serving import listing

    if entity is not None and entity not in ENTITIES:
        near = nearest(entity, ENTITIES)
        hint = f"; did you mean {near}?" if near else ""
        raise typer.BadParameter(f"expected one of {', '.join(ENTITIES)}, got {entity!r}{hint}",
                                 param_hint="--entity")  # fmt: skip
    at = now_ms()
    with store_of(mode) as store:
        found = listing.shown(
            store, name, entity=entity, in_force_at=None if every else at, actor=person(by), at=at,
            via=asking(),
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    for entry in found:
        expires = entry["expires_at"]
        until = "" if expires is None else f"  until {shown_time(expires)}"
        print(f"  {entry['entity']:<15} {entry['id'] or '(erased)':<32} {entry['reason']}"
              f"  by {entry['author']}{until}")  # fmt: skip
    if not found:
        note.print(f"the {name} list of the {mode} store has no such entry", markup=False)


@app.command("import")
def import_(
    name: ListName,
    file: Annotated[Path, typer.Argument(help="CSV: entity, id, reason, expires_at.")],
    by: By = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Take the good lines though others are bad.")
    ] = False,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Put the entities of a CSV file on a list: all, or none and a report of each bad line.

    Example: `recourse lists import block bad-devices.csv --by ann`
    """
    from serving import listing

    at = now_ms()
    parsed = listing.parse_csv(file.read_bytes(), at=at)
    taken = parsed.entries if skip_bad or not parsed.problems else ()
    with store_of(mode) as store:
        listing.put(store, name, taken, author=person(by), at=at, via=asking())
    if as_json:
        print_json({"put": len(taken), "bad": [str(problem) for problem in parsed.problems]})
    else:
        print(f"put on the {name} list: {len(taken):,}")
        for problem in parsed.problems:
            note.print(f"  {problem}", markup=False)
    if parsed.problems:
        bad = len({problem.line for problem in parsed.problems})
        lines = "1 bad line" if bad == 1 else f"{bad:,} bad lines"
        left = "the others were taken" if skip_bad else "nothing was taken (--skip-bad: the rest)"
        refuse(f"{file}: {lines}; {left}")
