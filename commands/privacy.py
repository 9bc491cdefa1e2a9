"""Personal data: what is known of a customer, erasure, another secret, and how long things stay."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from commands.shared import (
    AsJson,
    By,
    Mode,
    ModeOption,
    asking,
    kept_store_of,
    note,
    now_ms,
    person,
    print_json,
    progress_of,
    refuse,
    settings_of,
)

app = typer.Typer()
customer = typer.Typer(no_args_is_help=True, help="What is known of a customer; erasure.")
secret = typer.Typer(no_args_is_help=True, help="The secret that pseudonyms come from.")
retention = typer.Typer(no_args_is_help=True, help="How long things are kept.")
for _name, _group in (("customer", customer), ("secret", secret), ("retention", retention)):
    app.add_typer(_group, name=_name)

CustomerId = Annotated[
    str, typer.Argument(help="As requests name them; - reads it from standard input.")
]
_THEN = (
    "give the service the new secret now (RECOURSE_SECRET or RECOURSE_SECRET_FILE); keep the old "
    "one as long as there are backups that need it"
)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@customer.command("export")
def export(
    customer_id: CustomerId,
    out: Annotated[
        Path | None, typer.Option(help="Where to write; standard output when not given.")
    ] = None,
    by: By = None,
    mode: ModeOption = "live",
) -> None:
    """Write all that is known of a customer as one JSON document, which is recorded.

    Example: `recourse customer export c-4711 --out c-4711.json`
    """
    from serving.disclosure import document

    with kept_store_of(mode) as store:
        parts = document(store, _id(customer_id), actor=person(by), at=now_ms(), via=asking())
        if out is None:
            for part in parts:
                sys.stdout.buffer.write(part)
            print()
            return
        # Nobody else on this machine is to read it.
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines(parts)
    note.print(f"written to {out}", markup=False)


@customer.command("erase")
def erase(
    customer_id: CustomerId,
    yes: Yes = False,
    by: By = None,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Erase a customer for good: nobody can tell any more who they were; what was counted stands.

    Example: `recourse customer erase c-4711 --yes`
    """
    from serving.store.erasure import erase as erased_from

    name = _id(customer_id)
    _confirm(yes, f"Erase customer {name} from the {mode} store for good?")
    with kept_store_of(mode) as store:
        erased = erased_from(store, name, actor=person(by), at=now_ms(), via=asking())
    if as_json:
        print_json({"known": erased.was_known, "erased": dict(erased.rows)})
        return
    if not erased.was_known:
        note.print(f"nothing was held of {name}: is this the id that the backend sends?",
                   markup=False, highlight=False)  # fmt: skip
    print(f"{name} is erased from the {mode} store; rows changed or deleted:")
    _print_counts(erased.rows)


@secret.command("rotate")
def rotate(
    new_secret_file: Annotated[
        Path, typer.Option(help="A file with the new secret, readable by its owner only.")
    ],
    mode: Annotated[
        Mode | None, typer.Option("--mode", help="Only the store of live, or of test; else both.")
    ] = None,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Put the stores under another secret; no service may run. What was erased stays so.

    A store that is under the new secret already is left alone, so the command can be given again.

    Example: `recourse secret rotate --new-secret-file new-secret --yes`
    """
    from serving.logs import configure_logs
    from serving.settings import MIN_SECRET_CHARACTERS, read_private
    from serving.store.identifiers import Identifiers
    from serving.store.rotation import key_id_of
    from serving.store.rotation import rotate as rotated

    settings = settings_of()
    configure_logs(settings.log_level)
    try:
        new, old = read_private(new_secret_file).encode(), settings.secret_bytes()
    except ValueError as error:
        refuse(str(error))
    if len(new) < MIN_SECRET_CHARACTERS:
        refuse(f"{new_secret_file}: expected at least {MIN_SECRET_CHARACTERS} characters, "
               f"got {len(new)}")  # fmt: skip
    modes: tuple[Mode, ...] = (mode,) if mode else ("live", "test")
    urls = {one: settings.database_url_of(_store_name(one)) for one in modes}
    waiting = [one for one in modes if key_id_of(urls[one]) not in (None, Identifiers(new).key_id)]
    if waiting:
        _confirm(yes, f"Put the {' and the '.join(waiting)} store under another secret?")
    done = {}
    for one in waiting:
        with progress_of(f"the {one} store") as progress:
            done[one] = rotated(urls[one], old, new, actor=person(by), at=now_ms(), via=asking(),
                                progress=progress)  # fmt: skip
    if as_json:
        print_json({one: {"before": did.before, "after": did.after, "rows": dict(did.rows)}
                    for one, did in done.items()})  # fmt: skip
    for one, did in () if as_json else done.items():
        print(f"the {one} store is under secret {did.after}; rows changed:")
        _print_counts(did.rows)
    is_made_here = settings.secret is None and settings.secret_file is None
    if is_made_here and mode is None:
        kept = settings.home / f"secret.{Identifiers(old).key_id}"
        if _replace_secret(settings.home / "secret", new, kept):
            note.print(f"the service finds the new secret in RECOURSE_HOME; the old one is kept as "
                       f"{kept}, for backups that need it", markup=False)  # fmt: skip
        else:
            note.print("the secret in RECOURSE_HOME is the new one already", markup=False)
    else:
        note.print(_THEN, markup=False)


@retention.command("apply")
def apply(
    mode: ModeOption = "live",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Let go of what was kept longer than the settings say (RECOURSE_RETENTION_DAYS_…).

    The service does so by itself, bit by bit; this does all of it.

    Example: `recourse retention apply --dry-run`
    """
    from serving.retaining import keep_of
    from serving.store.erasure import forget_log
    from serving.store.retention import apply as applied_to

    with kept_store_of(mode) as store:
        applied = applied_to(store, keep_of(settings_of()), at=now_ms(), actor=person(by),
                             via=asking(), dry_run=dry_run)  # fmt: skip
        if not dry_run:
            forget_log(store.database)
    if as_json:
        print_json({"dry_run": dry_run, "rows": applied.rows, "left": applied.left})
        return
    print("rows that would go:" if dry_run else "rows that went:")
    _print_counts(applied.rows)
    for left in applied.left:
        note.print(f"left alone: {left}", markup=False)


def _replace_secret(path: Path, new: bytes, kept: Path) -> bool:
    """Put the new secret in the place of the old one, which is kept under another name.

    Returns whether it was another one.
    """
    if path.read_bytes().strip() == new:
        return False
    staged = path.with_name(f".secret-{os.getpid()}")
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(new)
    kept.unlink(missing_ok=True)
    os.link(path, kept)
    staged.replace(path)
    return True


def _id(given: str) -> str:
    """A customer id; one read from standard input stands in no list of commands."""
    name = sys.stdin.readline().rstrip("\n") if given == "-" else given
    if not name.strip():
        raise typer.BadParameter("expected a customer id", param_hint="CUSTOMER_ID")
    return name


def _confirm(yes: bool, question: str) -> None:
    if not yes and not typer.confirm(question, err=True):
        refuse("nothing was done")


def _print_counts(rows: Mapping[str, int]) -> None:
    for table, count in rows.items():
        print(f"  {table:<20} {count:>12,}")


def _store_name(mode: Mode) -> Literal["live", "sandbox"]:
    return "live" if mode == "live" else "sandbox"
