"""How long the console takes for a page, with tens of thousands of cases that wait.

``python -m benchmarks.console [--open 50000]`` prints one JSON document. A few hundred refunds of
a data folder are decided by a desk over its history; those that are held open a case each, and are
kept many times over, with other ids, until so many wait. Then the pages are asked for by somebody
who is signed in, in turns with that of their own account, which reads next to nothing: what it
costs is what any page does. Times are those of the server, in its process, without a network; the
exit code is 1 for a page that was not answered.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, get_args

import httpx
from sqlalchemy import insert, select

import rules
from benchmarks import postgresql
from benchmarks.backtest import decide_some
from benchmarks.service import BenchmarkError, Recourse, say
from features.tables import FolderError, read_folder
from rules.policy import load_policy
from serving.accounts import invite
from serving.api import Api, create_app
from serving.console.app import Console
from serving.desk import Desk
from serving.facts import FACTS
from serving.language import ENGLISH
from serving.models import Models, load_champion
from serving.policies import Policies, ensure_first
from serving.store.schema import decisions, refunds, reviews
from serving.store.store import Store
from training.dataset import rates_of

OPEN: Final = 50_000
DECIDED: Final = 400
ROUNDS: Final = 40
PAUSE_SECONDS: Final = 0.05
_BATCH: Final = 5_000
_SECRET: Final = b"the secret of a benchmark"
_ROOT: Final = "/console/sandbox"
_POLICY: Final = Path(rules.__file__).parent / "policies" / "default.yaml"

Kind = Literal["sqlite", "postgresql"]


def multiply(store: Store, count: int) -> list[str]:
    """Keep the cases that wait, with their decisions, until ``count`` wait; the real refunds."""
    with store.database.read() as connection:
        cases = connection.execute(
            select(reviews, decisions, refunds)
            .join(decisions, decisions.c.score_id == reviews.c.score_id)
            .join(refunds, refunds.c.refund_id == reviews.c.refund_id)
            .where(reviews.c.closed_at.is_(None))
            .set_label_style(2)  # type: ignore[arg-type]
        ).mappings().all()  # fmt: skip
    if not cases:
        raise BenchmarkError("no refund of the data folder is held")
    for start in range(len(cases), count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        with store.database.write() as connection:
            for table in (decisions, refunds, reviews):
                rows = [_copy(cases[n % len(cases)], table, n) for n in numbers]
                connection.execute(insert(table), rows)
    return [case["reviews_refund_id"] for case in cases]


def _copy(case: Mapping[str, Any], table: Any, number: int) -> dict[str, Any]:
    """A row of a case, of another refund and decision, with a little more at stake."""
    row = {column.name: case[f"{table.name}_{column.name}"] for column in table.columns}
    row |= {"refund_id": f"{row['refund_id']}-{number}"}
    if "score_id" in row:
        row["score_id"] = f"{number:032x}"
    if "place" in row:
        row["place"] = row["place"] - number % 997
    return row


# --- measuring ---------------------------------------------------------------------------------


@contextmanager
def served(store: Store, home: Recourse, data: Path) -> Iterator[httpx.AsyncClient]:
    """A client of the console of a store, signed in as an administrator."""
    policy = load_policy(_POLICY, FACTS)
    desk = Desk(store, Policies(policy), Models(load_champion(home.settings())),
                rates_of(read_folder(data).tables), _SECRET, 60_000, is_sandbox=True)  # fmt: skip
    api = Api({"live": desk, "test": desk}, 256 * 1024)
    console = Console(api, ENGLISH)
    transport = httpx.ASGITransport(create_app(lambda: api, console=console))
    cookies = {"recourse_sandbox": _session(store)}
    yield httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies)
    console.close()
    api.finish()


def _session(store: Store) -> str:
    at, session = time.time_ns() // 1_000_000, secrets.token_urlsafe(32)
    account, invitation = invite(
        store, "Ann", "admin", None, by="benchmark", via="benchmark", at=at
    )
    with store.database.write() as connection:
        accounts = store.accounts
        accounts.enrol(connection, account.id, _digest(invitation), "no hash", 0)
        accounts.begin(connection, _digest(session), account.id, at)
    return session


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def measure(client: httpx.AsyncClient, pages: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Milliseconds of each page, of its addresses in turns; and how often the first page's."""
    taken: dict[str, list[float]] = {name: [] for name in pages}
    failed: list[str] = []
    sizes: dict[str, int] = {}
    for turn in range(-3, ROUNDS):  # the first turns warm up
        for name, addresses in pages.items():
            await asyncio.sleep(PAUSE_SECONDS)  # as a session may ask for no more
            address = addresses[turn % len(addresses)]
            started = time.perf_counter()
            answer = await client.get(_ROOT + address)
            ms = (time.perf_counter() - started) * 1000
            if answer.status_code != 200:
                failed.append(f"{address}: {answer.status_code}")
            if turn >= 0:
                taken[name].append(ms)
                sizes[name] = len(answer.content)
    floor = median(next(iter(taken.values())))
    return {
        "pages": {
            name: {
                "p50_ms": round(median(ms), 2), "p95_ms": round(quantiles(ms, n=20)[-1], 2),
                "times_the_floor": round(median(ms) / floor, 1), "bytes": sizes[name],
            }
            for name, ms in taken.items()
        },
        "failed": failed[:20],
    }  # fmt: skip


def run(data: Path, model_home: Path | None, work: Path, count: int, kind: Kind) -> dict[str, Any]:
    """Build a store in the empty folder ``work`` and ask for its pages; returns the report."""
    home = Recourse(work / "home")
    home.home.mkdir()
    say("making the model ready")
    home.obtain_model(model_home)
    with database(kind, work) as url:
        store = Store.open(url, _SECRET, clock="event")
        ensure_first(store, _POLICY.read_text(encoding="utf-8"), 1)
        say(f"deciding {DECIDED} refunds")
        decide_some(store, data, home, DECIDED, load_policy(_POLICY, FACTS))
        say(f"opening {count:,} cases")
        real = multiply(store, count)
        with store.database.read() as connection:
            customers = [r.customer for r in store.reviews.queue(connection, limit=ROUNDS)]
        pages = {
            "account": ["/account"],
            "queue": ["/queue"],
            "case": [f"/case/{refund_id}" for refund_id in real],
            "customer": [f"/customer/{customer}" for customer in customers],
            "dashboard": ["/dashboard"],
            "policies": ["/policies"],
        }
        say("asking for pages")
        with served(store, home, data) as client:
            measured = asyncio.run(measure(client, pages))
        store.close()
    return {"store": kind, "open": count, **measured}


@contextmanager
def database(kind: Kind, work: Path) -> Iterator[str]:
    """The url of a new database."""
    if kind == "sqlite":
        yield f"sqlite:///{work}/console.db"
        return
    with (
        TemporaryDirectory(prefix="recourse-") as folder,
        postgresql.running(Path(folder)) as server,
    ):
        yield server()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument("--open", type=int, default=OPEN, help="so many cases wait")
    parser.add_argument("--store", choices=[*get_args(Kind), "both"], default="sqlite")
    parser.add_argument("--data", type=Path, default=Path("data/sample"),
                        help="a data folder, the history (default: data/sample)")  # fmt: skip
    parser.add_argument("--model-home", type=Path,
                        help="a home with a model (default: train on the sample)")  # fmt: skip
    given = parser.parse_args(arguments)
    kinds: tuple[Kind, ...] = get_args(Kind) if given.store == "both" else (given.store,)
    reports = []
    for kind in kinds:
        with TemporaryDirectory(prefix="console-") as work:
            try:
                reports.append(run(given.data, given.model_home, Path(work), given.open, kind))
            except (BenchmarkError, FolderError, FileNotFoundError) as error:
                print(error, file=sys.stderr)
                return 2
    print(json.dumps(reports, indent=2))
    return 1 if any(report["failed"] for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
