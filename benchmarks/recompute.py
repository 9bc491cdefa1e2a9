"""Whether every decision can be decided again from its record and its policy: share 1.0.

``python -m benchmarks.recompute [--decisions N]`` sends the refund requests of a simulated shop
through real desks, live and sandbox, over real stores, with all that may bear on a decision: list
entries that come and go, limits that are passed, an analyst's word, forced sandbox answers, three
policy versions put in force and one gone back from, exploration, a challenger, stretches without a
model and with one that fails, fields left out, refunds asked again, outcomes in between. Then it
decides every one of them again, and prints one JSON document. Exit code 1 unless all come out the
same in every word and each source, action and circumstance was met.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import lightgbm
import numpy as np
import orjson
import yaml

from benchmarks.bodies import order_body, refund_body
from features.catalog import MODEL_FEATURES
from features.events import RefundRequest
from features.feature import definitions_hash
from features.money import DAY_MS, Rates
from rules.decision import Action, Source
from rules.engine import Circumstances
from rules.policy import Policy
from serving import contract, policies
from serving.desk import SANDBOX_ACTIONS, Desk, Sender
from serving.logs import configure_logs
from serving.model import AbuseModel, Manifest, Platt, Reference
from serving.models import Models
from serving.policies import DEFAULT_POLICY, Policies, PolicyWatch
from serving.recompute import Recomputation, recompute
from serving.scorer import Champion
from serving.store.lists import ListEntry
from serving.store.store import Store
from training.simulate import simulate

SECRET: Final = b"a secret that only this benchmark has"
ME: Final = Sender("benchmark")
DEADLINE_MS: Final = 60_000
DAYS: Final = 240
TURNS: Final = (0.25, 0.5, 0.75, 0.875)
"""After which shares of the decisions another policy is put in force."""


# --- what decides ------------------------------------------------------------------------------


@functools.cache
def documents() -> tuple[str, str, str]:
    """Three versions of the default policy: one that explores, stricter limits, other bands."""
    default = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
    default |= {"version": "b1", "orders_complete": False,
                "exploration": {"share": 0.25, "max_amount_minor": 20_000}}  # fmt: skip
    limited = {"id": "customer_per_week", "version": 1, "by": "customer", "days": 7, "at_most": 2,
               "action": "PREVENT", "follow_up": {"code": "STEP_UP_VERIFICATION"}}  # fmt: skip
    stricter = {**default, "version": "b2", "limits": [*default.get("limits", []), limited]}
    complete = {**stricter, "version": "b3", "orders_complete": True, "fallback": "PREVENT"}
    first, second, third = (
        yaml.safe_dump(one, sort_keys=False) for one in (default, stricter, complete)
    )
    return first, second, third


def stand_in(version: str, seed: int) -> Champion:
    """A small booster of the real catalog; what it says need not be true here, only spread."""
    names = tuple(feature.name for feature in MODEL_FEATURES)
    random = np.random.default_rng(seed)
    rows = random.exponential(3, (600, len(names)))
    rows[:, names.index("payable_minor")] *= 4_000
    rows[random.random(rows.shape) < 0.2] = np.nan
    known = np.nan_to_num(rows)
    label = (known[:, names.index("payable_minor")] > 20_000) | (random.random(600) < 0.2)
    data = lightgbm.Dataset(rows, label, feature_name=list(names))
    how = {"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbosity": -1}
    booster = lightgbm.train(how, data, 12)
    manifest = Manifest(
        feature_names=names, features_hash=definitions_hash(MODEL_FEATURES), base_currency="GBP",
        label_definition={}, training_from=1, training_until=2, test_from=3, base_rate=0.1,
        expected_log_odds=-2.0, data_digest="invented",
    )  # fmt: skip
    score = Platt(1.0, 0.0).probability(np.asarray(booster.predict(rows, raw_score=True)))
    return Champion.of(AbuseModel(booster, Platt(1.0, -1.5), manifest, Reference.of(rows, score)),
                       version)  # fmt: skip


class Broken:
    """A model that fails at every request."""

    def predict(self, matrix: Any) -> Any:
        """Never says anything."""
        raise RuntimeError("broken for the benchmark")


@dataclass(frozen=True)
class Reviewed(Desk):
    """A desk where analysts have decided about some refunds before they are asked about again."""

    words: dict[str, Action] = field(default_factory=dict)

    def _circumstances(
        self, request: RefundRequest, keys: Mapping[str, str], policy: Policy,
        entries: Iterable[ListEntry],
    ) -> Circumstances:  # fmt: skip
        found = super()._circumstances(request, keys, policy, entries)
        return replace(found, disposition=self.words.get(request.refund_id))


def desk_of(folder: Path, name: str, rates: Rates, *, is_sandbox: bool) -> Reviewed:
    """A desk over a store of its own, with the first policy in force."""
    store = Store.open(f"sqlite:///{folder}/{name}.db", SECRET, clock="event")
    policies.ensure_first(store, documents()[0], 1)
    holder = Policies(policies.active(store))
    return Reviewed(store, holder, Models(), rates, SECRET, DEADLINE_MS, is_sandbox)


# --- the shop ----------------------------------------------------------------------------------


Row: TypeAlias = dict[str, Any]


def shop(decisions: int, seed: int) -> tuple[list[Row], dict[str, Row], Rates]:
    """Refund requests in order of time, with their lines; the orders by id, with theirs; rates."""
    tables = simulate(max(300, decisions // 2), DAYS, seed)
    rows = {name: table.to_pylist() for name, table in tables.items()}
    for owner, lines, key in (("orders", "order_items", "order_id"),
                              ("refund_requests", "refund_items", "refund_id")):  # fmt: skip
        by_key: dict[str, list[dict[str, Any]]] = {}
        for line in rows.get(lines, ()):
            by_key.setdefault(line[key], []).append(line)
        for row in rows[owner]:
            row["lines"] = by_key.get(row[key], [])
    orders = {order["order_id"]: order for order in rows["orders"]}
    requests = [row for row in rows["refund_requests"] if row["order_id"] in orders]
    rates = Rates.of("GBP", [(r["date"], r["currency"], r["rate"]) for r in rows["fx_rates"]])
    return requests[:decisions], orders, rates


class Run:
    """One run of the shop through two desks; every draw comes from the seed."""

    def __init__(self, folder: Path, decisions: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.requests, self.orders, rates = shop(decisions, seed)
        self.live = desk_of(folder, "live", rates, is_sandbox=False)
        self.sandbox = desk_of(folder, "sandbox", rates, is_sandbox=True)
        self.watches = [PolicyWatch(d.store, d.policies) for d in (self.live, self.sandbox)]
        self.champions = [stand_in("1", seed), stand_in("2", seed + 1)]
        self.wanted = decisions
        self.decided = self.turn = 0
        self.at = self.requests[0]["known_at"]

    @property
    def desks(self) -> tuple[Reviewed, Reviewed]:
        """Live and sandbox."""
        return self.live, self.sandbox

    def close(self) -> None:
        """Let go of the stores."""
        for desk in self.desks:
            desk.store.close()

    def decide_all(self) -> None:
        """Send requests until there are as many decisions as wanted."""
        for number, request in enumerate(self._endless()):
            if self.decided >= self.wanted:
                return
            if number % 97 == 0:
                self._change_models(number // 97)
            while self.turn < len(TURNS) and self.decided >= self.wanted * TURNS[self.turn]:
                self._change_policy(self.turn)
                self.turn += 1
            self._one(request)

    def _endless(self) -> Iterator[dict[str, Any]]:
        """The shop's requests, and again later under new ids when they run out."""
        yield from self.requests
        for again in itertools.count(1):
            for row in self.requests:
                later = {name: at + again * DAYS * DAY_MS for name, at in row.items()
                         if name.endswith("_at") and at is not None}  # fmt: skip
                yield {**row, **later, "refund_id": f"{row['refund_id']}-{again}"}

    def _change_policy(self, turn: int) -> None:
        """Put the second and the third in force, go back to the second, and forward again."""
        _, second, third = documents()
        for desk, watch in zip(self.desks, self.watches, strict=True):
            who: Any = {"actor": "bob", "at": self._tick()}
            if turn == 2:
                policies.roll_back(desk.store, **who)
            else:
                if turn < 2:
                    policies.propose(desk.store, (second, third)[turn], author="ann", note=None,
                                     at=self._tick())  # fmt: skip
                version = ("b2", "b3", None, "b3")[turn]
                policies.activate(desk.store, str(version), second_person=True, **who)
            watch.look()

    def _change_models(self, stretch: int) -> None:
        """A stretch with a model, one with a challenger beside, one without, one that fails."""
        first, second = self.champions
        broken = replace(first, model=Broken(), version="broken")  # type: ignore[arg-type]
        lineups = ((first, None), (first, second), (None, None), (second, first), (broken, first))
        champion, challenger = lineups[stretch % len(lineups)]
        for desk in self.desks:
            desk.models.put("champion", champion)
            desk.models.put("challenger", challenger)

    # --- one request -------------------------------------------------------------------------

    def _one(self, request: dict[str, Any]) -> None:
        self.at = max(self.at, request["known_at"])
        desk = self.sandbox if self._chance(0.15) else self.live
        order = self.orders[request["order_id"]]
        if self._chance(0.8):
            self._report_order(desk, order)
        if self._chance(0.12):
            self._put_on_a_list(desk, request)
        if self._chance(0.05):
            desk.words[request["refund_id"]] = self._any(
                [Action.ALLOW, Action.PREVENT, Action.MANUAL_REVIEW]
            )
        action = self._ask(desk, request)
        if self._chance(0.05):
            self._ask(desk, {**request, "amount_minor": request["amount_minor"] // 2 + 1})
        if self._chance(0.03):
            for burst in range(7):
                self._ask(desk, {**request, "refund_id": f"{request['refund_id']}+{burst}"})
        if action == "ALLOW" and self._chance(0.7):
            self._report_outcome(desk, request)

    def _ask(self, desk: Reviewed, request: dict[str, Any]) -> str:
        row = {**request, "known_at": self._tick()}
        for column in ("device_id", "delivered_at", "ordered_at", "reason", "payment_method_id",
                       "order_amount_minor", "type"):  # fmt: skip
            if self._chance(0.06) and not (column == "reason" and not row["lines"]):
                row[column] = None
        if self._chance(0.03):
            row["currency"] = "ISK"  # which no rate turns into the base currency
        if desk.is_sandbox and self._chance(0.4):
            row["email"] = f"{self._any(list(SANDBOX_ACTIONS))}@shop.example"
        lines = [{**line, "reason": line.get("reason") or "OTHER"} for line in row.pop("lines")]
        report = contract.parse_refund(orjson.dumps(refund_body(row, lines)), scored=True)
        answer = desk.decide(report, self._tick, ME)
        self.decided += not answer.replayed
        return str(answer.body["data"]["action"])

    def _report_order(self, desk: Reviewed, order: dict[str, Any]) -> None:
        body = order_body({**order, "known_at": self._tick()}, order["lines"])
        if self._chance(0.8):
            body["transactions"] = [
                {"transactionId": f"t-{order['order_id']}", "type": "CAPTURE", "success": True,
                 "amount": order["amount_minor"], "currency": order["currency"],
                 "paymentMethodId": order["payment_method_id"] or "unknown"}
            ]  # fmt: skip
        report = contract.parse_order(orjson.dumps(body))
        desk.record(report, self._tick(), ME.actor)

    def _report_outcome(self, desk: Reviewed, request: dict[str, Any]) -> None:
        status = self._any(["COMPLETED", "COMPLETED", "FAILED", "CANCELED"])
        body = {"refund": {"refundId": request["refund_id"], "status": status}}
        report = contract.parse_refund(orjson.dumps(body), scored=False)
        desk.record(report, self._tick(), ME.actor)

    def _put_on_a_list(self, desk: Reviewed, request: dict[str, Any]) -> None:
        of = {"customer": "customer_id", "device": "device_id", "payment_method":
              "payment_method_id", "ip": "ip"}  # fmt: skip
        entity = self._any([kind for kind, column in of.items() if request[column] is not None])
        at = self._tick()
        with desk.store.write() as tx:
            tx.put_on_list(
                self._any(["block", "allow"]), entity, request[of[entity]], reason="of the run",
                author="ann", at=at, expires_at=at + DAY_MS if self._chance(0.5) else None,
            )  # fmt: skip

    def _tick(self) -> int:
        self.at += 1
        return int(self.at)

    def _chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def _any(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.random.integers(len(choices)))]


# --- what came of it ---------------------------------------------------------------------------


def circumstances(desk: Desk) -> Counter[str]:
    """How many decisions had what to bear."""
    found: Counter[str] = Counter()
    for stored in desk.store.decisions():
        record = stored.record
        decision = record["decision"]
        met = {
            "on_block_list": bool(record["lists"]["block"]),
            "on_allow_list": bool(record["lists"]["allow"]),
            "disposition": record["disposition"] is not None,
            "sandbox_forced": record["sandbox"] is not None,
            "limit_passed": any(rule["stage"] == "limit" for rule in decision["hits"]),
            "degraded": decision["degraded"],
            "explored": decision["explored"],
            "unsettled_rule": any(rule["calls_for"] != "ALLOW" for rule in decision["unknowns"]),
            "shadow_rule_hit": any(rule["mode"] == "shadow" for rule in decision["hits"]),
            "challenger": "shadow" in record,
            "amount_not_convertible": record["features"]["payable_minor"] is None,
            "follow_up": decision["follow_up"] is not None,
            "balance_held_by_others": record["facts"].get("order_reserved_minor", 0) > 0,
        }
        found.update(name for name, is_met in met.items() if is_met)
        found.update(dict.fromkeys(met, 0))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 0 when every decision came out the same and nothing was left untried."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    configure_logs("ERROR")
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        run = Run(Path(folder), given.decisions, given.seed)
        try:
            run.decide_all()
            decided = time.perf_counter()
            found = [recompute(desk.store) for desk in run.desks]
            ended = time.perf_counter()
            met = sum((circumstances(desk) for desk in run.desks), Counter())
            every = [name for desk in run.desks for name in circumstances(desk)]
        finally:
            run.close()
    told = told_of(found) | {
        "met": dict(sorted(met.items())),
        "missed": sorted(missed(found, met, set(every))),
        "seconds": {"deciding": round(decided - started, 1),
                    "recomputing": round(ended - decided, 1)},
    }  # fmt: skip
    print(json.dumps(told, indent=2))
    whole = told["decisions"] == told["whole"] >= given.decisions
    return 0 if whole and not told["missed"] else 1


def told_of(found: Sequence[Recomputation]) -> dict[str, Any]:
    """The figures of several stores as one."""
    decisions, same = sum(one.decisions for one in found), sum(one.same for one in found)
    return {
        "decisions": decisions,
        "same": same,
        "whole": sum(one.whole for one in found),
        "share": same / decisions,
        "by_source": dict(sum((one.by_source for one in found), Counter()).most_common()),
        "by_action": dict(sum((one.by_action for one in found), Counter()).most_common()),
        "by_policy": dict(sum((one.by_policy for one in found), Counter()).most_common()),
        "differing": [str(one) for each in found for one in each.differing[:10]],
    }


def missed(found: Sequence[Recomputation], met: Counter[str], names: set[str]) -> set[str]:
    """Sources, actions and circumstances that no decision had."""
    sources = {source.value for one in found for source in Source if one.by_source[source.value]}
    actions = {action.value for one in found for action in Action if one.by_action[action.value]}
    untried = ({s.value for s in Source} - sources) | ({a.value for a in Action} - actions)
    return untried | {name for name in names if not met[name]}


if __name__ == "__main__":
    sys.exit(main())
