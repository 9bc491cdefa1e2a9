"""The synthetic world: the same seed gives the same bytes, and the tables hold together."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.money import DAY_MS
from features.tables import EVENT_OF_TABLE, SCHEMA, read_folder, write_folder
from training.labels import label_refunds
from training.simulate import World, simulate, simulate_with_truth

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
END_MS = 1_782_864_000_000  # 2026-07-01T00:00Z
MATURITY_DAYS = 30
WRITTEN = tuple(name for name in SCHEMA if name != "decisions")
"""No service decided in the simulated shop."""


def digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.parquet"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def world() -> World:
    return simulate_with_truth(customers=1500, days=240, seed=3)


@pytest.fixture(scope="module")
def sample() -> dict[str, pd.DataFrame]:
    return {file.stem: pd.read_parquet(file) for file in SAMPLE.glob("*.parquet")}


# --- the same again --------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_folder(simulate(customers=300, days=120, seed=seed), tmp_path / name)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys() == {f"{table}.parquet" for table in WRITTEN}
    assert all(a[name] != c[name] for name in a)


def test_the_sample_is_what_its_readme_says_it_is(tmp_path):
    text = (SAMPLE / "README.md").read_text()
    command = re.search(
        r"recourse simulate --customers (\d+) --days (\d+) --seed (\d+) --out data/sample", text
    )
    assert command, "the README holds no command"
    customers, days, seed = map(int, command.groups())
    write_folder(simulate(customers, days, seed), tmp_path)
    assert digests(tmp_path) == digests(SAMPLE), "run the README's command and commit the result"
    stated = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", text, re.MULTILINE))
    counted = {name: pq.read_metadata(SAMPLE / f"{name}.parquet").num_rows for name in WRITTEN}
    assert {name: int(count.replace(",", "")) for name, count in stated.items()} == counted


# --- the shape of the tables -----------------------------------------------------------------


UNTOLD = {"order_updates": {"sku"}, "refund_requests": {"payment_method_expires_at"}}
"""What no world tells: its parcels are whole, and its cards do not expire."""


def test_every_table_has_the_columns_and_types_of_the_schema(world):
    assert tuple(world.tables) == WRITTEN
    for name, table in world.tables.items():
        left_out = {"event_id", *UNTOLD.get(name, ())}
        columns = {c.name: c.arrow_type for c in SCHEMA[name] if c.name not in left_out}
        assert dict(zip(table.column_names, table.schema.types, strict=True)) == columns, name


def test_a_written_world_is_a_good_data_folder(world, tmp_path):
    write_folder(world.tables, tmp_path)
    folder = read_folder(tmp_path)
    assert folder.ignored == ()
    assert {n: t.num_rows for n, t in folder.tables.items()} == {
        n: t.num_rows for n, t in world.tables.items()
    }


def test_rows_are_in_order_of_known_at_and_none_is_past_the_end(world):
    for name in EVENT_OF_TABLE.values():
        known_at = world.tables[name.table]["known_at"].to_numpy()
        assert (np.diff(known_at) >= 0).all(), name
        assert known_at.max() < END_MS, name


@pytest.mark.parametrize(("customers", "days"), [(1, 1), (1, 40), (3, 2), (40, 10)])
def test_a_tiny_world_is_a_world(customers, days):
    for seed in range(5):
        assert tuple(simulate(customers, days, seed)) == WRITTEN


def test_every_impossible_argument_is_named_at_once():
    with pytest.raises(ValueError, match=r"customers: got 0, .*; days: got -1, .*; seed: got -2, "):
        simulate(customers=0, days=-1, seed=-2)


# --- the facts agree with each other ---------------------------------------------------------


def frames(world: World) -> dict[str, pd.DataFrame]:
    return {name: table.to_pandas() for name, table in world.tables.items()}


def test_what_is_referred_to_exists(world):
    of = frames(world)
    orders, refunds = set(of["orders"]["order_id"]), set(of["refund_requests"]["refund_id"])
    customers = set(of["orders"]["customer_id"])
    assert not of["orders"]["order_id"].duplicated().any()
    for name, table in of.items():
        for column, known in (
            ("order_id", orders),
            ("refund_id", refunds),
            ("customer_id", customers),
        ):
            if column in table:
                assert set(table[column].dropna()) <= known, f"{name}.{column}"


def test_nothing_is_known_before_what_it_is_about(world):
    of = frames(world)
    requested = of["refund_requests"].groupby("refund_id")["known_at"].min()
    ordered = of["orders"].set_index("order_id")["known_at"]
    for name, table in of.items():
        if "known_at" not in table:
            continue
        for column, since in (("refund_id", requested), ("order_id", ordered)):
            if column in table:
                about = table[table[column].notna()]
                late = about["known_at"] - since.reindex(about[column]).to_numpy()
                assert (late >= 0).all(), f"{name}.{column}"
    labelled = of["labels"].dropna(subset="refund_id")
    assert (labelled["known_at"] > requested.reindex(labelled["refund_id"]).to_numpy()).all()


def test_business_times_are_in_the_past(world):
    for table in ("orders", "refund_requests", "order_updates"):
        frame = frames(world)[table]
        for column in ("ordered_at", "registered_at", "delivered_at"):
            if column in frame:
                known = frame[frame[column].notna()]
                assert (known[column] <= known["known_at"]).all(), f"{table}.{column}"


def test_money_adds_up(world):
    of = frames(world)
    goods = of["order_items"].groupby("order_id")["amount_minor"].sum()
    orders = of["orders"].set_index("order_id")
    assert (goods.reindex(orders.index) + orders["shipping_minor"]).equals(orders["amount_minor"])
    refunds = of["refund_requests"]
    assert (refunds["amount_minor"] <= refunds["order_amount_minor"]).all()
    assert (refunds["non_refundable_minor"] <= refunds["amount_minor"]).all()
    first = refunds.drop_duplicates("refund_id").set_index("refund_id")["amount_minor"]
    items = of["refund_items"].groupby("refund_id")["amount_minor"].sum()
    assert (items <= first.reindex(items.index)).all()


def test_an_order_is_never_refunded_above_its_amount(world):
    of = frames(world)
    asked = of["refund_requests"].drop_duplicates("refund_id", keep="last")
    total = asked.groupby("order_id")["amount_minor"].sum()
    amount = of["orders"].set_index("order_id")["amount_minor"]
    assert (total <= amount.reindex(total.index)).all()


def test_the_unusual_is_there(world):
    of = frames(world)
    refunds = of["refund_requests"]
    versions = refunds[refunds["refund_id"].duplicated(keep=False)].groupby("refund_id")
    assert (versions["amount_minor"].nunique() > 1).any(), "no refund sent again"
    assert refunds["ignore"].any()
    for column in ("device_id", "ip", "email", "payment_method_id", "order_id", "ip_risk"):
        share = refunds[column].isna().mean()
        assert 0 < share < 0.5, column
    assert of["orders"]["currency"].nunique() >= 4
    assert of["orders"]["ip"].str.contains(":").any()
    assert {"EARLY_FRAUD_WARNING", "REQUEST_FOR_INFORMATION"} < set(of["disputes"]["stage"])
    assert set(of["labels"]["source"]) == {"ANALYST", "CHARGEBACK", "INVESTIGATION"}


# --- the truth -------------------------------------------------------------------------------


def test_labels_follow_the_truth_but_not_blindly(world):
    truth = world.truth["refunds"].to_pandas().set_index("refund_id")["abuse"]
    labels = world.tables["labels"].to_pandas().dropna(subset="refund_id")
    said = labels[labels["label"] == "REFUND_ABUSE"].drop_duplicates("refund_id")
    right = truth.reindex(said["refund_id"]).mean()
    assert 0.75 < right < 0.99
    found = truth[truth].index.isin(said["refund_id"]).mean()
    assert 0.35 < found < 0.8


def test_the_truth_is_of_every_customer_and_refund(world):
    customers, refunds = (world.truth[name].to_pandas() for name in ("customers", "refunds"))
    requested = world.tables["refund_requests"].to_pandas()
    assert set(requested["refund_id"]) <= set(refunds["refund_id"])
    assert set(requested["customer_id"]) <= set(customers["customer_id"])
    assert (refunds["mode"].notna() == refunds["abuse"]).all()
    made_up_by = refunds.merge(requested.drop_duplicates("refund_id"), on="refund_id")
    made_up_by = made_up_by.merge(customers, on="customer_id")
    abuse = made_up_by[made_up_by["abuse"] & (made_up_by["mode"] != "opportunist")]
    assert len(abuse)
    assert (abuse["mode"] == abuse["kind"]).all()


def test_no_id_gives_its_owner_away(world):
    """Kinds lie in blocks inside; the order of customer ids must not show it."""
    customers = world.truth["customers"].to_pandas().sort_values("customer_id")
    honest = (customers["kind"] == "honest").to_numpy()
    runs = 1 + (honest[1:] != honest[:-1]).sum()
    expected = 2 * len(honest) * honest.mean() * (1 - honest.mean())
    assert runs > 0.8 * expected


# --- the sample ------------------------------------------------------------------------------


def test_the_sample_is_large_enough_and_small_enough():
    assert sum(file.stat().st_size for file in SAMPLE.iterdir()) < 10_000_000
    refunds = pq.read_table(SAMPLE / "refund_requests.parquet", columns=["refund_id", "known_at"])
    assert len(set(refunds["refund_id"].to_pylist())) >= 40_000
    span = (END_MS - refunds["known_at"].to_numpy().min()) / DAY_MS
    assert 540 < span <= 549


def test_abuse_in_the_sample_is_rare_but_there():
    folder = read_folder(SAMPLE)
    abuse = label_refunds(folder.tables, as_of=END_MS, maturity_days=MATURITY_DAYS).abuse
    assert 0.03 < np.nanmean(abuse) < 0.06


def test_labels_of_the_sample_are_mostly_there_after_thirty_days(sample):
    labels = sample["labels"].dropna(subset="refund_id")
    labels = labels[labels["label"] == "REFUND_ABUSE"]
    first = labels.groupby("refund_id")["known_at"].min()
    requested = sample["refund_requests"].groupby("refund_id")["known_at"].min()
    delay_days = (first - requested.reindex(first.index)) / DAY_MS
    assert (delay_days <= MATURITY_DAYS).mean() > 0.9
    assert delay_days.max() > MATURITY_DAYS


def test_the_last_week_of_the_sample_has_known_abusers_and_honest_customers(sample):
    refunds, labels = sample["refund_requests"].drop_duplicates("refund_id"), sample["labels"]
    now = END_MS - 7 * DAY_MS
    before, last = refunds[refunds["known_at"] < now], refunds[refunds["known_at"] >= now]
    abuse = labels[(labels["label"] == "REFUND_ABUSE") & (labels["known_at"] < now)]["refund_id"]
    caught = before[before["refund_id"].isin(abuse)]["customer_id"].value_counts()
    seen = before[~before["customer_id"].isin(caught.index)]["customer_id"].value_counts()
    assert last["customer_id"].isin(caught[caught >= 2].index).sum() >= 3
    assert last["customer_id"].isin(seen[seen >= 2].index).sum() >= 20


def test_the_tactic_changes_mid_run():
    world = simulate_with_truth(customers=4000, days=360, seed=1)
    refunds = world.tables["refund_requests"].to_pandas().drop_duplicates("refund_id")
    mode = world.truth["refunds"].to_pandas().set_index("refund_id")["mode"]
    claims = refunds[mode.reindex(refunds["refund_id"]).eq("non_delivery_claimer").to_numpy()]
    not_received = claims["reason"].eq("ITEM_NOT_RECEIVED").to_numpy()
    late = claims["known_at"].to_numpy() > END_MS - 120 * DAY_MS
    early = claims["known_at"].to_numpy() < END_MS - 240 * DAY_MS
    assert not_received[early].mean() > not_received[late].mean() + 0.2


def test_nothing_is_a_pyarrow_dictionary_or_a_date(world):
    for table in world.tables.values():
        assert {str(kind) for kind in table.schema.types} <= {"string", "int64", "bool", "double"}
    assert pa.types.is_string(world.tables["fx_rates"].schema.field("date").type)
