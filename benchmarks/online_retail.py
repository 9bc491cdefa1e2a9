"""The main job on real input: a retailer's invoices imported, then replayed against a real service.

``python -m benchmarks.online_retail [INVOICES] [--model-home HOME] [--clients N]`` reads UCI Online
Retail II (a British shop, December 2009 to December 2010), imports all before November 2010, and
sends every refund request from then on to a service, in time order, with the orders between them
and what became of each refund. It prints one JSON document, and a table on standard error. Exit
code 1 when a call failed or a decision's features are not those that the skew monitor
(`serving.monitor`) computes from the store's events.

One client sends a call when the one before it is answered. Several take turns at the instants and
send at once, so that a decision may be made before an earlier event has arrived: its row is then
late visible, which is no skew.

What the invoices say, and how it is read:

- An invoice is an order, a ``C…`` invoice a refund request of its customer, both known at the
  invoice's time (minutes, taken as UTC), in pounds. A refund is of the customer's latest earlier
  invoice that holds all its stock codes, where there is one, else of an unknown order.
- Why a customer cancelled is not said: the reason is ``OTHER``. Account, device, address, delivery
  and payment are not said either, and stay unknown.
- `ASSUMPTIONS` are stated as facts because the rules ask for them. They are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.bodies import Body, Row, order_body, refund_body
from benchmarks.service import ROOT, BenchmarkError, Client, Recourse, Reply, say
from features.money import Rates
from features.tables import Tables, write_folder
from rules.decision import FACT_MISSING
from serving.home import Home
from serving.monitor import Skew, skew
from serving.store.store import Store

INVOICES: Final = Path("data/online_retail/invoices_2009_2010.parquet")
"""Where the file lies in the folder that is shared beside the repository."""

LIVE_FROM: Final = pd.Timestamp("2010-11-01", tz="UTC")
"""What was known before is imported; what came since is sent to the service."""

ASSUMPTIONS: Final = (
    "final_sale is false: distance selling in the United Kingdom gives every buyer a right to "
    "cancel, and no line says otherwise",
    "type is REFUND: a cancelled invoice gives money back; whether goods came back is not said",
    "claim is FULL when all that was paid for the order is asked back, else PARTIAL",
    "each refund was paid at once, except where the service said PREVENT",
)

COUNTRIES: Final = {
    "Australia": "AU", "Austria": "AT", "Bahrain": "BH", "Belgium": "BE", "Bermuda": "BM",
    "Brazil": "BR", "Canada": "CA", "Cyprus": "CY", "Denmark": "DK", "EIRE": "IE",
    "Finland": "FI", "France": "FR", "Germany": "DE", "Greece": "GR", "Hong Kong": "HK",
    "Iceland": "IS", "Israel": "IL", "Italy": "IT", "Japan": "JP", "Lebanon": "LB",
    "Lithuania": "LT", "Malta": "MT", "Netherlands": "NL", "Nigeria": "NG", "Norway": "NO",
    "Poland": "PL", "Portugal": "PT", "RSA": "ZA", "Singapore": "SG", "Spain": "ES",
    "Sweden": "SE", "Switzerland": "CH", "Thailand": "TH", "USA": "US",
    "United Arab Emirates": "AE", "United Kingdom": "GB",
}  # fmt: skip
"""Names that mean one ISO 3166 code; Channel Islands, Korea, West Indies, Unspecified do not."""

_COLUMNS: Final = {
    "Invoice": "invoice", "StockCode": "sku", "Quantity": "quantity", "InvoiceDate": "time",
    "Price": "price", "Customer ID": "customer", "Country": "country",
}  # fmt: skip
_MOST_SHOWN: Final = 10


# --- invoices to a data folder ---------------------------------------------------------------


@dataclass(frozen=True)
class Converted:
    """A data folder's tables, and how many lines or invoices were read, skipped or odd."""

    tables: Tables
    counts: Mapping[str, int]


def convert(invoices: pa.Table) -> Converted:
    """The data folder that invoice lines amount to; raises BenchmarkError for missing columns."""
    lines, counts = _clean(invoices)
    lines["line_id"] = (lines.groupby("invoice", sort=False).cumcount() + 1).astype(str)
    heads = lines.groupby("invoice", sort=False).agg(
        is_refund=("is_refund", "first"),
        customer_id=("customer", "first"),
        # Some invoices took two minutes: one is known when it is whole.
        known_at=("known_at", "max"),
        amount_minor=("amount_minor", "sum"),
        item_count=("quantity", "sum"),
        shipping_country=("country", "first"),
    )
    heads["currency"] = "GBP"
    orders = heads[~heads["is_refund"]].rename_axis("order_id").reset_index()
    orders["ordered_at"] = orders["known_at"]
    refunds = heads[heads["is_refund"]].rename_axis("refund_id").reset_index()
    refunds["order_id"] = _cancelled_orders(lines, orders, refunds)
    refunds = refunds.merge(
        orders[["order_id", "ordered_at", "amount_minor"]].rename(
            columns={"amount_minor": "order_amount_minor"}
        ),
        on="order_id", how="left",
    )  # fmt: skip
    for column in ("ordered_at", "order_amount_minor"):
        refunds[column] = refunds[column].astype("Int64")
    is_whole = refunds["amount_minor"] >= refunds["order_amount_minor"]
    refunds["claim"] = is_whole.map({True: "FULL", False: "PARTIAL"})
    refunds["reason"], refunds["type"], refunds["final_sale"] = "OTHER", "REFUND", False
    lines["reason"], lines["final_sale"] = "OTHER", False
    counts |= {
        "orders": len(orders),
        "refund_requests": len(refunds),
        "refund_requests_without_order": int(refunds["order_id"].isna().sum()),
    }
    own = ["line_id", "sku", "quantity", "amount_minor"]
    items = {
        "order_items": ("order_id", ~lines["is_refund"], [*own, "final_sale"]),
        "refund_items": ("refund_id", lines["is_refund"], [*own, "reason"]),
    }
    tables = {"orders": orders, "refund_requests": refunds} | {
        table: lines[chosen].rename(columns={"invoice": parent})[[parent, *columns]]
        for table, (parent, chosen, columns) in items.items()
    }
    return Converted(
        {name: pa.Table.from_pandas(table, preserve_index=False) for name, table in tables.items()},
        counts,
    )


def _clean(invoices: pa.Table) -> tuple[pd.DataFrame, dict[str, int]]:
    """The lines that are an order's or a refund's, with positive quantities; and the counts."""
    if lacking := _COLUMNS.keys() - set(invoices.column_names):
        raise BenchmarkError(f"the invoices lack the columns {', '.join(sorted(lacking))}")
    lines = invoices.select(list(_COLUMNS)).to_pandas().rename(columns=_COLUMNS)
    lines["is_refund"] = lines["invoice"].str.startswith("C")
    nobody = lines["customer"].isna()
    backward = ~nobody & ((lines["quantity"] < 0) != lines["is_refund"])
    empty = ~nobody & (lines["quantity"] == 0)
    negative = ~nobody & (lines["price"] < 0)
    pence = (lines["price"] * 100).round()
    counts = {
        "lines": len(lines),
        "invoices": lines["invoice"].nunique(),
        "lines_without_customer": int(nobody.sum()),
        "invoices_without_customer": lines.loc[nobody, "invoice"].nunique(),
        "lines_of_no_or_wrong_sign": int((backward | empty).sum()),
        "lines_of_negative_price": int(negative.sum()),
        "lines_for_nothing": int((~nobody & (lines["price"] == 0)).sum()),
        "lines_below_a_penny": int((~nobody & (lines["price"] > 0) & (pence == 0)).sum()),
    }
    lines = lines.assign(pence=pence)[~(nobody | backward | empty | negative)]
    lines["quantity"] = lines["quantity"].abs()
    lines["amount_minor"] = lines["quantity"] * lines["pence"].astype("int64")
    lines["customer"] = lines["customer"].astype("int64").astype(str)
    lines["known_at"] = lines["time"].astype("datetime64[ms]").astype("int64")
    lines["country"] = lines["country"].map(COUNTRIES)
    return lines.drop(columns=["pence", "price", "time"]), counts


def _cancelled_orders(
    lines: pd.DataFrame, orders: pd.DataFrame, refunds: pd.DataFrame
) -> list[str | None]:
    """For each refund the customer's latest earlier invoice with all its stock codes, if any."""
    codes: dict[str, set[str]] = {}
    for invoice, sku in zip(lines["invoice"].tolist(), lines["sku"].tolist(), strict=True):
        codes.setdefault(invoice, set()).add(sku)
    earlier: dict[str, list[tuple[int, str]]] = {}
    for known_at, customer, invoice in sorted(_rows(orders)):
        earlier.setdefault(customer, []).append((known_at, invoice))
    return [
        next(
            (
                invoice
                for ordered_at, invoice in reversed(earlier.get(customer, []))
                if ordered_at < known_at and codes[invoice] >= codes[refund]
            ),
            None,
        )
        for known_at, customer, refund in _rows(refunds)
    ]


def _rows(heads: pd.DataFrame) -> list[tuple[int, str, str]]:
    """(known_at, customer, invoice) of orders or refunds."""
    columns = (heads["known_at"], heads["customer_id"], heads.iloc[:, 0])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def split(tables: Tables, at: int) -> tuple[Tables, Tables]:
    """What was known before an instant (epoch ms), and what came from then on."""
    before: dict[str, pa.Table] = {}
    since: dict[str, pa.Table] = {}
    for name, items, key in (
        ("orders", "order_items", "order_id"),
        ("refund_requests", "refund_items", "refund_id"),
    ):
        is_old = pc.less(tables[name]["known_at"], at)
        for part, chosen in ((before, is_old), (since, pc.invert(is_old))):
            part[name] = tables[name].filter(chosen)
            kept = pc.is_in(tables[items][key], part[name][key].combine_chunks())
            part[items] = tables[items].filter(kept)
    return before, since


# --- the replay ------------------------------------------------------------------------------


def calls(tables: Tables) -> Iterator[tuple[int, list[Body], list[Body]]]:
    """Per instant, in order: the refund requests to be scored, and the orders that follow them.

    At a tie the request comes first: what is known at its own instant it does not see.
    """
    refund_lines = _by(tables["refund_items"], "refund_id")
    order_lines = _by(tables["order_items"], "order_id")
    refunds = _by(tables["refund_requests"], "known_at")
    orders = _by(tables["orders"], "known_at")
    for at in sorted(refunds.keys() | orders.keys()):
        yield (
            at,
            [
                # A scored request must name an order; one that nobody knows stands for "unknown".
                refund_body({**row, "order_id": row["order_id"] or f"unknown-{row['refund_id']}"},
                            refund_lines[row["refund_id"]])
                for row in refunds.get(at, [])
            ],
            [order_body(row, order_lines[row["order_id"]]) for row in orders.get(at, [])],
        )  # fmt: skip


def _by(table: pa.Table, column: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in table.to_pylist():
        found.setdefault(row[column], []).append(row)
    return found


def outcome_body(request: Body, action: str) -> Body:
    """What became of a refund, a second later: paid, unless the service said PREVENT."""
    refund_id = request["refund"]["refundId"]
    head = {
        "timestamp": request["timestamp"] + 1000,
        "customer": {"customerId": request["customer"]["customerId"]},
        "order": {"orderId": request["order"]["orderId"]},
    }
    if action == "PREVENT":
        refund = {"refundId": refund_id, "status": "DECLINED", "declineReason": "RISK"}
        return {**head, "refund": refund}
    amount, currency = request["refund"]["amount"], request["refund"]["currency"]
    transaction = {
        "transactionId": f"paid-{refund_id}", "type": "REFUND", "amount": amount,
        "currency": currency, "success": True,
    }  # fmt: skip
    refund = {"refundId": refund_id, "status": "COMPLETED",
              "refundIssuedTime": request["timestamp"] + 1000}  # fmt: skip
    return {**head, "refund": refund, "transactions": [transaction]}


@dataclass
class Replay:
    """What the service answered."""

    decisions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Refund -> the ``data`` of its decision."""
    ms: list[float] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def run(
        self, clients: Sequence[Client], instants: Iterable[tuple[int, list[Body], list[Body]]]
    ) -> None:
        """Send everything: each client takes the next instant when it is done with one."""
        remaining = iter(instants)

        def work(client: Client) -> None:
            while True:
                with self._lock:
                    instant = next(remaining, None)
                if instant is None:
                    return
                self._send(client, *instant)

        with ThreadPoolExecutor(len(clients)) as pool:
            for done in [pool.submit(work, client) for client in clients]:
                done.result()

    def _send(self, client: Client, _: int, requests: list[Body], orders: list[Body]) -> None:
        """Send what one instant holds, each call after the answer to the one before it."""
        outcomes = []
        for request in requests:
            answer = self._call("scored", client, "/v2/refund?score=refundRequest", request)
            if answer.status == 200:
                decision = answer.body["data"]
                self.decisions[request["refund"]["refundId"]] = decision
                outcomes.append(outcome_body(request, decision["action"]))
        for order in orders:
            self._call("orders", client, "/v2/order", order)
        for outcome in outcomes:
            self._call("outcomes", client, "/v2/refund", outcome)

    def _call(self, kind: str, client: Client, path: str, body: Body) -> Reply:
        answer = client.post(path, body)
        with self._lock:
            self.sent[kind] += 1
            if kind == "scored":
                self.ms.append(answer.ms)
            if answer.status != 200:
                self.errors.append(f"{kind}: {answer.status} {answer.body}")
        return answer


# --- what came of it -------------------------------------------------------------------------


def compare(records: Iterable[Mapping[str, Any]], found: Skew) -> dict[str, Any]:
    """How many decisions rest on the feature row that is computed offline, and what differs."""
    rows = [record["features"] for record in records]
    known = sum(
        row["refund_count_by_customer_365d"] > 0 or row["order_count_by_customer_365d"] > 0
        for row in rows
    )
    return {
        **found.counts,
        "equal_share": _share(found.equal, found.decisions),
        "with_customer_history_share": _share(known, len(rows)),
        "first_differences": [str(one) for one in found.findings[:_MOST_SHOWN]],
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _held_for(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The decisions that are reviews because rules lacked facts, and which rules and facts."""
    decisions = [record["decision"] for record in records]
    held = [d for d in decisions if FACT_MISSING in d["reasons"]]
    asking = [
        [r for r in d["unknowns"] if r["mode"] == "live" and r["calls_for"] == d["action"]]
        for d in held
    ]
    rules = Counter(rule["rule_id"] for unsettled in asking for rule in unsettled)
    facts = Counter(
        fact for unsettled in asking for fact in {f for r in unsettled for f in r["unknown_facts"]}
    )
    return {"decisions": len(held), "by_rule": _top(rules), "by_fact": _top(facts)}


def _top(counts: Counter[str], most: int | None = None) -> dict[str, int]:
    return dict(counts.most_common(most))


def summarise(replay: Replay, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The answers, counted."""
    decisions = replay.decisions.values()
    quantiles = np.percentile(replay.ms, [50, 95, 99, 100]).round(2) if replay.ms else [None] * 4
    by_source: dict[str, Counter[str]] = {}
    for decision in decisions:
        by_source.setdefault(decision["action"], Counter())[decision["source"]] += 1
    codes = Counter(code for d in decisions for code in {r["code"] for r in d["reasons"]})
    warnings = Counter(kind for d in decisions for kind in {w["class"] for w in d["warnings"]})
    return {
        "sent": dict(replay.sent),
        "errors": len(replay.errors),
        "first_errors": replay.errors[:_MOST_SHOWN],
        "actions_by_source": {action: _top(by_source[action]) for action in sorted(by_source)},
        "degraded": _top(Counter(r["problem"] for r in records.values() if r["problem"])),
        "held_for_missing_facts": _held_for(records.values()),
        "reason_codes": _top(codes, _MOST_SHOWN),
        "warnings": _top(warnings),
        "latency_ms": dict(zip(("p50", "p95", "p99", "max"), map(_plain, quantiles), strict=True)),
    }


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)


def run(
    invoices: Path, model_home: Path | None, work: Path, live_from: pd.Timestamp, clients: int = 1
) -> dict[str, Any]:
    """Convert, import, replay and compare, in the empty folder ``work``; returns the report."""
    say("converting the invoices")
    converted = convert(pq.read_table(invoices))
    past, live = split(converted.tables, live_from.value // 10**6)
    write_folder(past, work / "past")
    recourse = Recourse(work / "home")
    recourse.home.mkdir()
    say("making the model ready")
    recourse.obtain_model(model_home)
    say("importing what was known before")
    recourse.import_folder(work / "past")
    key = recourse.create_key("score", "report", "review")
    say("starting the service")
    replay = Replay()
    with recourse.serve() as port:
        senders = [Client(port, key) for _ in range(clients)]
        say("sending what came since")
        replay.run(senders, calls(live))
        records = {
            refund: _record(senders[0], decision["scoreId"])
            for refund, decision in replay.decisions.items()
        }
    say("computing the same features offline")
    settings = recourse.settings()
    store = Store.open(
        settings.database_url_of("sandbox"), settings.secret_bytes(), create=False, clock="event"
    )
    found = skew(store, Rates.of(settings.base_currency, store.fx_rates()))
    store.close()
    return {
        "model_version": Home(recourse.home).served_version(),
        "clients": clients,
        "assumptions": list(ASSUMPTIONS),
        "converted": converted.counts,
        "imported": {name: table.num_rows for name, table in past.items()},
        **summarise(replay, records),
        "served_equals_offline": compare(records.values(), found),
    }


def _record(client: Client, score_id: str) -> Mapping[str, Any]:
    answer = client.get(f"/v2/decision/{score_id}")
    if answer.status != 200:
        raise BenchmarkError(f"decision {score_id}: {answer.status} {answer.body}")
    record: Mapping[str, Any] = answer.body["data"]["record"]
    return record


# --- the command -----------------------------------------------------------------------------


def to_text(report: Mapping[str, Any]) -> str:
    """The report for a reader."""
    latency, compared = report["latency_ms"], report["served_equals_offline"]
    held = report["held_for_missing_facts"]
    rows = [
        ("imported", ", ".join(f"{n:,} {name}" for name, n in report["imported"].items())),
        ("sent", ", ".join(f"{n:,} {name}" for name, n in report["sent"].items())),
        ("errors", report["errors"]),
        *(
            (action, ", ".join(f"{n:,} by {source}" for source, n in sources.items()))
            for action, sources in report["actions_by_source"].items()
        ),
        ("held for missing facts", f"{held['decisions']:,} {held['by_rule']}"),
        *((f"degraded: {problem}", f"{n:,}") for problem, n in report["degraded"].items()),
        *((f"reason {code}", f"{n:,}") for code, n in report["reason_codes"].items()),
        ("latency", ", ".join(f"{name} {ms} ms" for name, ms in latency.items())),
        ("served equals offline", f"{compared['equal_share']} of {compared['decisions']:,} rows, "
                                  f"{compared['features']} features"),
        ("skew", ", ".join(f"{compared[kind]:,} {kind}" for kind in _SKEW)),
        ("late visible", f"{compared['late_visible']:,}"),
        ("with customer history", compared["with_customer_history_share"]),
        *(("differs", difference) for difference in compared["first_differences"]),
        *(("assumed", assumption) for assumption in report["assumptions"]),
    ]  # fmt: skip
    return "\n".join(f"  {name:<44} {value}" for name, value in rows)


_SKEW: Final = ("mismatched", "missing", "extra")


def is_sound(report: Mapping[str, Any]) -> bool:
    """Whether every call was answered, and every decision rests on the offline feature row.

    Where several clients sent at once a row may be late visible.
    """
    compared = report["served_equals_offline"]
    may_be_late = report["clients"] > 1
    explained = compared["equal"] + (compared["late_visible"] if may_be_late else 0)
    return report["errors"] == 0 and 0 < report["sent"]["scored"] == explained


def _shared_invoices() -> Path | None:
    path = ROOT.parent / "shared" / INVOICES
    return path if path.is_file() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online_retail",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument("invoices", nargs="?", type=Path, default=_shared_invoices(),
                        help="the invoices, a Parquet file")  # fmt: skip
    parser.add_argument("--model-home", type=Path,
                        help="a home with a model (default: train on the sample)")  # fmt: skip
    parser.add_argument("--clients", type=int, default=1, choices=range(1, 65), metavar="N",
                        help="how many send at once, 1 to 64 (default: 1)")  # fmt: skip
    given = parser.parse_args(arguments)
    if given.invoices is None or not given.invoices.is_file():
        print(f"{given.invoices or INVOICES.name}: no such file; name the invoices of UCI Online "
              "Retail II as Parquet", file=sys.stderr)  # fmt: skip
        return 2
    with TemporaryDirectory(prefix="online-retail-") as work:
        try:
            report = run(given.invoices, given.model_home, Path(work), LIVE_FROM, given.clients)
        except BenchmarkError as error:
            print(error, file=sys.stderr)
            return 2
    print(to_text(report), file=sys.stderr)
    print(json.dumps(report, indent=2))
    return 0 if is_sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
