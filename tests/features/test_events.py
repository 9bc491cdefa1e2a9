"""Events: spelling is made one, ids are derived, and models hold what tables promise."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from features.events import (
    COLUMN_OF,
    EVENTS,
    IDENTIFIERS,
    NORMAL,
    NORMALISE,
    Label,
    Order,
    address_key,
    derive_event_id,
    normalise_email,
    normalise_ip,
)

emails = st.emails() | st.text(max_size=30) | st.from_regex(r"[a-zA-Z+.]+@[a-z+]+\.com")
addresses = st.ip_addresses().map(str) | st.text(max_size=30)


@given(emails)
@example("+tag@example.com")
@example("++@example.com")
@example(" a@b@c ")
@example("ﬀ@example.com")
@example("İ@example.com")
@example("ͅ@example.com")
def test_email_is_normalised_once(email: str) -> None:
    assert normalise_email(normalise_email(email)) == normalise_email(email)


@given(st.emails())
def test_email_spelt_in_other_ways_is_the_same(email: str) -> None:
    local, _, domain = email.rpartition("@")
    if local.isascii() and "+" not in local and domain.isascii():
        spelt = f"  {local.upper()}+shop@{domain.upper()} "
        assert normalise_email(spelt) == normalise_email(email)


def test_email_of_another_mailbox_is_another() -> None:
    assert normalise_email("a.b@example.com") != normalise_email("ab@example.com")
    assert normalise_email("a@example.com") != normalise_email("a@example.org")


@given(addresses)
@example("2001:db8::/64")
@example("2001:db8::/64/64")
@example("fe80::1%eth0")
@example("::ffff:192.0.2.7")
def test_ip_is_normalised_once(ip: str) -> None:
    assert normalise_ip(normalise_ip(ip)) == normalise_ip(ip)


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_one_household_is_one_ip(ip: object, host: int) -> None:
    network = int(ip) >> 64 << 64  # type: ignore[call-overload]
    if network:
        first, other = (str(type(ip)(network + part)) for part in (0, host))  # type: ignore[call-arg]
        assert normalise_ip(first) == normalise_ip(other)


groups = st.tuples(*[st.sampled_from((0, 1, 0xDB8, 0xFFFF)) | st.integers(0, 0xFFFF)] * 8)


@given(groups)
@example((0, 0, 0, 0xFFFF, 1, 2, 3, 4))
@example((0, 0, 0, 0, 0, 0xFFFF, 3, 4))
@example((1, 2, 3, 0, 5, 6, 7, 8))
def test_a_network_is_found_however_its_address_is_written(parts: tuple[int, ...]) -> None:
    address = ipaddress.IPv6Address(b"".join(part.to_bytes(2, "big") for part in parts))
    network = ipaddress.ip_network((address, 64), strict=False)
    expected = str(address.ipv4_mapped or network)
    in_full = ":".join(f"{part:x}" for part in parts)
    for spelling in (in_full, in_full.upper(), str(address), address.exploded, expected):
        assert normalise_ip(spelling) == expected


@given(emails | addresses | st.from_regex(NORMAL["ip"], fullmatch=True)
       | st.from_regex(NORMAL["email"], fullmatch=True))  # fmt: skip
@example("ann@example.com")
@example("192.0.2.7")
@example("010.0.0.1")
@example("a\n")
def test_what_looks_normal_is_normal(spelling: str) -> None:
    for column, normalise in NORMALISE.items():
        if re.fullmatch(NORMAL[column], spelling):
            assert normalise(spelling) == spelling


@given(st.ip_addresses(v=4).map(str))
def test_usual_spellings_look_normal(ip: str) -> None:
    assert re.fullmatch(NORMAL["ip"], ip)
    assert re.fullmatch(NORMAL["email"], f"ann.lee_{ip}@example.co.uk")


@given(st.text(max_size=20), st.text(max_size=10), st.sampled_from([None, "GB", "FR"]))
def test_address_key_does_not_see_case_spaces_or_dots(
    street: str, code: str, country: str | None
) -> None:
    key = address_key(street, code, country)
    assert address_key(f" {street}., ", f"{code} -", country) == key
    if street.isascii():
        assert address_key(street.upper(), code, country) == key


def test_address_key_tells_countries_apart() -> None:
    assert address_key("1 High St", "1000", "BE") != address_key("1 High St", "1000", "CH")


@pytest.mark.parametrize("nothing", [None, "", " ", "-", "_ ."])
def test_a_country_alone_is_no_address(nothing: str | None) -> None:
    assert address_key(nothing, nothing, "GB") is None
    assert address_key(nothing, "AB1", "GB") is not None


# --- ids ---------------------------------------------------------------------------------------

contents = st.dictionaries(
    st.sampled_from(["refund_id", "status", "amount_minor", "reason"]),
    st.none() | st.text(max_size=5) | st.integers(0, 10**15),
)


@given(contents, st.integers(0, 10**14), st.integers(0, 10**14))
def test_an_id_depends_on_content_alone(content: dict[str, object], now: int, then: int) -> None:
    backwards = dict(reversed(content.items()))
    first = derive_event_id("return", {**content, "known_at": now})
    assert derive_event_id("return", {**backwards, "known_at": then, "order_id": None}) == first
    assert derive_event_id("dispute", content) != first
    assert derive_event_id("return", {**content, "more": 1}) != first


@given(contents, contents)
def test_other_content_has_another_id(one: dict[str, object], other: dict[str, object]) -> None:
    same = {k: v for k, v in one.items() if v is not None} == {
        k: v for k, v in other.items() if v is not None
    }
    assert (derive_event_id("return", one) == derive_event_id("return", other)) is same


@pytest.mark.parametrize("column", sorted(IDENTIFIERS))
def test_an_id_betrays_no_person(column: str) -> None:
    content = {"refund_id": "r1", "amount_minor": 5}
    with_person = derive_event_id("refund_request", {**content, column: "someone"})
    assert with_person == derive_event_id("refund_request", content)


def test_labels_of_two_customers_at_one_instant_are_two() -> None:
    def id_of(customer: str, at: int) -> str:
        content = {"customer_id": customer, "label": "REFUND_ABUSE", "known_at": at}
        return derive_event_id("label", content, repeats=True)

    assert len({id_of(customer, at) for customer in ("c1", "c2") for at in (1, 2)}) == 4


# --- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.event_type)
def test_every_event_names_its_tables_and_what_it_is_known_by(event: type[Label]) -> None:
    fields = event.model_fields
    assert {"event_id", "known_at", *event.one_of, *event.part_of} <= set(fields)
    assert all(fields[whole].is_required() for whole in event.part_of.values())
    assert (event.item_table is None) == ("items" not in fields)
    assert set(COLUMN_OF.values()) & set(fields)
    assert fields["known_at"].is_required() and not fields["event_id"].is_required()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"amount_minor": -1}, "amount_minor"),
        ({"amount_minor": 10**15 + 1}, "amount_minor"),
        ({"currency": "gbp"}, "currency"),
        ({"customer_id": ""}, "customer_id"),
        ({"known_at": -1}, "known_at"),
        ({"billing_country": "GBR"}, "billing_country"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_field_is_refused_by_name(changed: dict[str, object], field: str) -> None:
    good = {"order_id": "o", "customer_id": "c", "known_at": 0, "amount_minor": 0,
            "currency": "GBP"}  # fmt: skip
    assert Order.model_validate(good).amount_minor == 0
    with pytest.raises(ValidationError) as error:
        Order.model_validate({**good, **changed})
    assert [problem["loc"] for problem in error.value.errors()] == [(field,)]
