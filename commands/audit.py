"""The audit log: verify it, show it, seal it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from commands.shared import (
    AsJson,
    ModeOption,
    instant,
    kept_store_of,
    now_ms,
    print_json,
    print_table,
    progress_of,
    refuse,
    settings_of,
    shown_time,
)

if TYPE_CHECKING:
    from serving.store.audit import KeptEntry
    from serving.vouching import Finding, Vouched

app = typer.Typer(no_args_is_help=True, help="The audit log: verify, show, seal.")

HeadOption = Annotated[
    Path | None,
    typer.Option("--head", help="The exported heads; those under RECOURSE_AUDIT_HEAD_DIR if none."),
]


def _store_name(mode: str) -> Literal["live", "sandbox"]:
    return "live" if mode == "live" else "sandbox"


@app.command()
def verify(mode: ModeOption = "live", head: HeadOption = None, as_json: AsJson = False) -> None:
    """Check every entry against its seal, and the seals against the exported heads.

    Names each entry that was altered, removed or inserted, and exits with 1 then. What was appended
    after the last exported head could be cut off unseen; how much that is, is said.

    Example: `recourse audit verify --mode live`
    """
    from serving.heads import HeadFile
    from serving.store.seals import KeyLostError
    from serving.vouching import vouch

    settings = settings_of()
    file = head or settings.audit_head(_store_name(mode))
    if head is not None and not head.exists():
        refuse(f"--head: {head} is not there")
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            print(f"  {finding}")

    with kept_store_of(mode) as store, progress_of("seals") as progress:
        try:
            vouched = vouch(store, settings.secret_bytes(), HeadFile(file).read(), tell,
                            progress=progress)  # fmt: skip
        except KeyLostError as error:
            refuse(f"the {mode} store: {error}")
    if as_json:
        findings = [asdict(finding) for finding in found]
        print_json({**vouched.to_json(), "mode": mode, "head_file": str(file),
                    "findings": findings})  # fmt: skip
    else:
        print_table(_rows(vouched))
    if found:
        what = "1 finding" if len(found) == 1 else f"{len(found):,} findings"
        refuse(f"the {mode} store: the audit log has {what}; expected none")


def _rows(vouched: Vouched) -> list[tuple[str, Any]]:
    head, since = vouched.head, vouched.unsealed_since
    oldest = "" if since is None else f", the first of {shown_time(since)}"
    return [
        ("sealed entries", f"{vouched.sealed:,}"),
        ("personal part erased", f"{vouched.erased:,}"),
        ("vouched for up to", "nothing" if head is None else
         f"position {head.position:,}, exported {shown_time(head.at)}"),
        ("sealed since", f"{vouched.sealed_since:,}"),
        ("not sealed yet", f"{vouched.unsealed:,}{oldest}"),
    ]  # fmt: skip


@app.command()
def show(
    subject: Annotated[
        str | None, typer.Option(help="About what, as refund:r-1, policy:3, key:key_…")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Then or later; ISO 8601.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The latest so many.")] = 100,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Show entries of the audit log, the newest last.

    Example: `recourse audit show --subject policy:3 --mode live`
    """
    first = instant(since, "--since")
    with kept_store_of(mode) as store, store.database.read() as connection:
        kept = store.audit_log.latest(connection, subject=subject, since=first, limit=limit)
    entries = [{"seq": one.seq, **_told(one), "erased": one.is_erased} for one in reversed(kept)]
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        details = {**entry["content"], **(entry["personal"] or {})}
        erased = "  (personal part erased)" if entry["erased"] else ""
        at = shown_time(entry["at"]) if isinstance(entry["at"], int) else entry["at"]
        print(f"  {entry['seq']:>8}  {at}  {entry['actor']}  "
              f"{entry['action']}  {entry['subject']}  {orjson.dumps(details).decode()}"
              f"{erased}")  # fmt: skip


def _told(one: KeptEntry) -> dict[str, Any]:
    """An entry; one that somebody altered so that it is none any more, as it stands."""
    try:
        told = asdict(one.entry())
        orjson.dumps(told)
    except (KeyError, TypeError, ValueError):
        names = ("at", "actor", "action", "subject")
        texts = {name: str(getattr(one, name)) for name in names}
        altered = {"altered": str(one.content), "personal": str(one.personal)}
        return {**texts, "content": altered, "personal": None}
    return told


@app.command()
def seal(mode: ModeOption = "live") -> None:
    """Seal now what the service would seal within a second, where none runs.

    Example: `recourse audit seal --mode live`
    """
    from serving.sealing import Sealer

    settings = settings_of()
    with kept_store_of(mode) as store:
        head = settings.audit_head(_store_name(mode))
        sealer = Sealer(store, settings.secret_bytes(), head, now=now_ms)
        try:
            count = sealer.seal()
        finally:
            sealer.give_up()
    if count is None:
        refuse(f"the {mode} store: another process seals it already")
    print(f"{count:,} entries sealed")
