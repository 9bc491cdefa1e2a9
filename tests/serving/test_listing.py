"""List entries from people and from CSV: the good ones as meant, the bad ones each named."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.events import ENTITIES
from serving import contract, listing
from serving.listing import Entry, parse_csv
from serving.store.lists import NewEntry
from serving.store.store import Store
from serving.wire import InvalidRequest
from tests.serving.test_desk import SECRET

AT = 1_780_000_000_000
REFUND = {"refund": {"refundId": "r-1", "status": "DECLINED", "amount": 1, "currency": "GBP"}}
HEADER = b"entity,id,reason,expires_at\n"


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/lists.db", SECRET)
    yield opened
    opened.close()


def bad(data: bytes) -> list[str]:
    return [str(problem) for problem in parse_csv(data, at=AT).problems]


# --- entries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity", "given_id", "kept"),
    [
        ("email", " Ann+shop@Example.COM ", "ann@example.com"),
        ("ip", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("ip", "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("ip", "203.0.113.9", "203.0.113.9"),
        ("customer", "Ann", "Ann"),
        ("address", "addr_1", "addr_1"),
        ("device", "abc\u200b", "abc\u200b"),
        ("device", "dev\u00a01", "dev\u00a01"),
        ("customer", "a\nb", "a\nb"),
        ("customer", " c1 ", " c1 "),
        ("email", '"a@b"@c.example', '"a@b"@c.example'),
    ],
)
def test_an_entity_is_kept_in_the_spelling_of_requests(entity, given_id, kept):
    assert Entry.of(entity, given_id, "x", None, AT).original == kept


@pytest.mark.parametrize(
    ("entity", "given_id"),
    [("ip", "10.0.0.0/8"), ("ip", "nowhere"), ("email", "ann"), ("email", "@" + "\ufdfa" * 250),
     ("device", "x" * 257), ("device", "a\0b"), ("device", "\n"), ("device", ""),
     ("device", "\ud800")],
)  # fmt: skip
def test_what_no_request_could_bear_is_refused(entity, given_id):
    with pytest.raises(InvalidRequest) as refused:
        Entry.of(entity, given_id, "x", None, AT)
    assert [problem.field for problem in refused.value.problems] == ["id"]


IDS = st.text(st.characters(exclude_categories=()), max_size=4) | st.sampled_from(
    ["x" * 256, "x" * 257, " ", "\u00a0", "a\0"]
)


@given(IDS)
def test_an_id_can_be_listed_if_and_only_if_a_request_can_bear_it(text):
    """The wire's customer and device as a request names them, for every text."""
    try:
        contract.parse_refund(orjson.dumps({**REFUND, "device": {"deviceId": text},
                              "customer": {"customerId": text}}), scored=False)  # fmt: skip
        borne = True
    except (InvalidRequest, TypeError):  # half a surrogate pair is no JSON
        borne = False
    for entity in ("device", "customer"):
        try:
            assert Entry.of(entity, text, "x", None, AT).original == text
            listed = True
        except InvalidRequest:
            listed = False
        assert listed == borne


@pytest.mark.parametrize("expires_at", [AT, AT - 1, 0, 10**18])
def test_an_expiry_lies_ahead(expires_at):
    with pytest.raises(InvalidRequest, match="expires_at"):
        Entry.of("device", "d", "x", expires_at, AT)
    assert Entry.of("device", "d", "x", AT + 1, AT).expires_at == AT + 1


def test_an_entry_is_put_shown_and_taken_off_with_a_trace_of_each(store):
    entries = [Entry.of("device", f"d{n}", "ring", AT + 5 if n else None, AT) for n in range(3)]
    assert len(listing.put(store, "block", entries, author="ann", at=AT)) == 3
    found = listing.shown(store, "block", in_force_at=AT + 5, actor="bob", at=AT)
    assert [(entry["id"], entry["author"]) for entry in found] == [("d0", "ann")]
    every = listing.shown(store, "block", actor="bob", at=AT)
    assert {entry["id"] for entry in every} == {"d0", "d1", "d2"}
    assert listing.take_off(store, "block", "device", "d0", actor="cy", at=AT)
    assert not listing.take_off(store, "block", "device", "d0", actor="cy", at=AT)
    assert not listing.take_off(store, "allow", "device", "d1", actor="cy", at=AT)
    value, entries = store.identifiers.mac("device", "d0"), store.audit_about("list:block")
    about = [one for one in entries if one.personal.get("value") == value]
    assert [(entry.action, entry.actor) for entry in about] == [
        ("listed", "ann"),
        ("unlisted", "cy"),
    ]
    assert [e.content["entries"] for e in entries if e.action == "revealed"] == [1, 3]


def test_many_are_put_a_thousand_at_a_time_and_each_leaves_its_trace(store):
    """Decisions come in between, and what is wrong is found before anything is put."""
    sizes: list[int] = []
    put_many = store.lists.put
    store.lists.put = lambda *a, **k: sizes.append(len(done := put_many(*a, **k))) or done
    entries = [Entry.of("device", f"d{n}", f"ring {n}", None, AT) for n in range(2_001)]
    with pytest.raises(ValueError, match="entity: expected one of customer"):
        listing.put(store, "block", [*entries, NewEntry("devise", "d", "x")], author="ann", at=AT)
    assert store.list_entries("block") == ()
    again = entries[0]._replace(reason="seen twice")
    done = listing.put(store, "block", [*entries, again], author="ann", at=AT, via="cli:root")
    assert sizes == [1_000, 1_000, 1]
    assert len(done) == len(store.list_entries("block")) == 2_001
    for number, reason in ((0, "seen twice"), (2_000, "ring 2000")):
        value = store.identifiers.mac("device", f"d{number}")
        (entry,) = [e for e in store.audit_about("list:block") if e.personal["value"] == value]
        assert entry.actor == "cli:root"
        assert entry.content == {"entity": "device", "expires_at": None}
        assert entry.personal == {"by": "ann", "reason": reason, "value": value}


# --- CSV -----------------------------------------------------------------------------------------


def test_a_file_is_read_whatever_its_columns_order_bom_and_line_ends():
    data = b'\xef\xbb\xbfReason,ID,Entity\r\n"a, b",d1,device\r\n\r\nc,Ann@x.example,EMAIL\r\n'
    parsed = parse_csv(data, at=AT)
    assert parsed.problems == ()
    assert [tuple(entry) for entry in parsed.entries] == [
        ("device", "d1", "a, b", None), ("email", "ann@x.example", "c", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expires_at"),
    [
        ("2027-01-01", 1_798_761_600_000),
        ("2027-01-01T00:00:00Z", 1_798_761_600_000),
        ("2027-01-01T01:00:00+01:00", 1_798_761_600_000),
        ("1798761600", 1_798_761_600_000),
        ("1798761600000", 1_798_761_600_000),
        ("", None),
    ],
)
def test_an_expiry_is_read_as_people_write_it(text, expires_at):
    (entry,) = parse_csv(HEADER + f"device,d1,x,{text}\n".encode(), at=AT).entries
    assert entry.expires_at == expires_at


def test_each_bad_line_is_reported_by_number_field_and_value_and_the_good_ones_are_read():
    data = HEADER + (
        b"device,d1,ring,\n"  # 2
        b"devise,d2,ring,\n"  # 3
        b"email,nobody,,tomorrow\n"  # 4: three things
        b"ip,10.0.0.0/8,x,\n"  # 5
        b"device,d3\n"  # 6
        b"device,d1,again,\n"  # 7
        b"device,d4,x,2001-01-01\n"  # 8
        b"device,\xff,x,\n"  # 9
        b'device,d8,"two\nlines",\n'  # 10 and 11
        b"device,d5,x,\n"  # 12
        b'device,"d6"x,x,\n'  # 13
        b"device,d7,x,\n"  # 14
    )
    parsed = parse_csv(data, at=AT)
    assert [entry.original for entry in parsed.entries] == ["d1", "d5", "d7"]
    assert [(b.line, b.problem.field) for b in parsed.problems] == [
        (3, "entity"), (4, "expires_at"), (4, "id"), (4, "reason"), (5, "id"), (6, "line"),
        (7, "id"), (8, "expires_at"), (9, "id"), (10, "reason"), (13, "line"),
    ]  # fmt: skip
    said = [str(problem) for problem in parsed.problems]
    assert "did you mean device?" in said[0]
    assert 'got "tomorrow"' in said[1]
    assert "line 2" in said[6]


def test_a_header_that_is_none_is_reported_and_nothing_is_read():
    assert bad(b"") == bad(b"\n")
    assert len(bad(b"")) == 3
    (first, second) = bad(b"entty,id,reason\ndevice,d1,x\n")
    assert first.startswith("line 1: entity: is required")
    assert "did you mean entity?" in second
    assert "once" in bad(b"entity,id,id,reason\n")[0]
    assert len(bad(b"device,d1,ring\n")) >= 3, "a file without a header"


def test_a_quote_that_never_ends_is_said_of_the_line_it_begins_in():
    assert bad(HEADER + b'device,d1,x,\ndevice,"d2,x,\ndevice,d3,x,\n')[0].startswith(
        "line 3: line:"
    )


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    st.lists(st.tuples(st.sampled_from([*ENTITIES, "x"]), CELL, CELL, st.sampled_from(["", "z"])))
)
def test_every_line_is_either_an_entry_or_a_problem(rows):
    """What csv itself writes is read back, and no line is lost or read as another."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(listing.COLUMNS)
    writer.writerows(rows)
    parsed = parse_csv(file.getvalue().encode(), at=AT)
    assert len(parsed.entries) + len({b.line for b in parsed.problems}) == len(rows)
    expected, seen = [], set()
    for entity, original, reason, expires_at in rows:
        try:
            entry = Entry.of(entity, original, reason.strip(), None, AT)
        except InvalidRequest:
            continue
        if not expires_at and entry[:2] not in seen:
            seen.add(entry[:2])
            expected.append(entry)
    assert list(parsed.entries) == expected


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_report(data):
    parsed = parse_csv(HEADER + data, at=AT)
    assert all(isinstance(str(problem), str) for problem in parsed.problems)


@pytest.mark.parametrize("written", ["1 High St. | AB1 2CD | GB", "1, high st|ab12cd|gb"])
def test_an_address_is_listed_as_a_request_that_names_it_is_read(written):
    listed = Entry.of("address", written, "drop address", None, at=0).original
    body = {"customer": {"customerId": "c"}, "order": {"orderId": "o"},
            "refund": {"refundId": "r", "status": "OPEN", "amount": 1, "currency": "GBP",
                       "refundReason": "OTHER"},
            "addresses": {"shipping": {"street": "1 High St", "postalCode": "AB1 2CD",
                                       "country": "GB"}}}  # fmt: skip
    report = contract.parse_refund(orjson.dumps(body), scored=True)
    (asked,) = [event for event in report.events(1) if event.event_type == "refund_request"]
    assert asked.address_id == listed


@pytest.mark.parametrize("written", ["1 High Street", "1 High St|AB1 2CD", "a|b|c|d", "-|-|GB"])
def test_an_address_that_no_request_could_bear_is_refused(written):
    with pytest.raises(InvalidRequest, match="postal code"):
        Entry.of("address", written, "drop address", None, at=0)


def test_an_address_of_a_data_folder_is_listed_by_its_id():
    assert Entry.of("address", "a-17", "drop address", None, at=0).original == "a-17"


# --- to CSV --------------------------------------------------------------------------------------


@given(
    st.lists(
        st.builds(
            lambda id, reason, expires: {"entity": "device", "id": id, "reason": reason,
                                         "expires_at": expires},
            st.text("=+-@'\"\t a1é,\n", min_size=1, max_size=6).filter(lambda id: id.strip()),
            st.text("=+-@' a,\"", min_size=1, max_size=6).filter(lambda text: text.strip()),
            st.none() | st.integers(AT + 1, AT * 2),
        ),
        unique_by=lambda entry: entry["id"], max_size=6,
    )
)  # fmt: skip
def test_what_is_exported_is_imported_again_and_no_cell_acts(entries):
    taken = [entry for entry in entries if is_taken(entry)]
    data = listing.originals_csv(taken)
    rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert not [cell for row in rows for cell in row if cell[:1] in [*"=+-@", "\t", "\r"]]
    found = parse_csv(data, at=AT)
    assert not found.problems
    assert [(one.original, one.reason, one.expires_at) for one in found.entries] == [
        (one["id"], one["reason"].strip(), one["expires_at"]) for one in taken
    ]


def is_taken(entry: dict[str, Any]) -> bool:
    """Whether an entry is as one that stands on a list, in the spelling of one."""
    try:
        made = Entry.of("device", entry["id"], entry["reason"], entry["expires_at"], AT)
    except InvalidRequest:
        return False
    return made.original == entry["id"]


def test_an_export_under_pseudonyms_says_no_original_and_is_audited(store):
    listing.put(store, "block", [Entry.of("device", "dev-1", "=cmd()", AT + 1, AT)], author="ann",
                at=AT)  # fmt: skip
    entries = store.list_entries("block")
    told = listing.pseudonyms_csv(store, "block", entries, actor="bob", at=AT, via="account:a")
    text = told.decode("utf-8-sig")
    assert text.splitlines()[1].split(",")[:3] == ["device", entries[0].value, "'=cmd()"]
    assert "dev-1" not in text
    last = store.audit_about("list:block")[-1]
    assert (last.actor, last.action, last.content) == ("account:a", "exported", {"entries": 1})


def test_entries_are_told_by_whether_they_are_over_and_taken_off_by_pseudonym(store):
    for n, until in enumerate((None, AT + 5, AT + 50)):
        listing.put(store, "block", [NewEntry("device", f"d{n}", "ring", until)], author="ann",
                    at=AT + n)  # fmt: skip
    [over] = store.list_entries("block", over_at=AT + 5)
    assert (over.expires_at, over.created_at) == (AT + 5, AT + 1)
    with store.database.read() as connection:
        assert store.lists.count_put(connection, "block", AT + 1) == 1
    assert listing.take_off_known(store, "block", over.value, actor="bob", at=AT + 9)
    assert not listing.take_off_known(store, "block", over.value, actor="bob", at=AT + 9)
    assert store.list_entries("block", over_at=AT + 5) == ()
    last = store.audit_about("list:block")[-1]
    assert (last.action, last.content) == ("unlisted", {"entity": "device"})
