"""Names of people: what is read as a name, and who is one person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.persons import NameRefused, is_same_person, name_of_person

READABLE = [
    "Ann Lee", "O\u2019Neill", "Zo\u00eb", "\u0410\u043d\u043d\u0430", "\u5c71\u7530 \u3042\u3084",
    "\uae40\ubbfc\uc900", "ci+deploy@example.com", "CORP\\ann", "key_0a", "uid-1000",
]  # fmt: skip
NOBODYS = [
    "", " ", "\u00a0", "a\nb", "a\0", "a\u200bb", "a\u202eb", "a\u034fb", "a\U000e0101", "a\u2028b",
    "\ud800", "\u0430nn", "\u03b1nn", "a\u115f", "\u2800", "x" * 101, "\ufdfa" * 20,
]  # fmt: skip


@pytest.mark.parametrize("name", READABLE)
def test_a_name_is_kept_as_it_is(name):
    assert name_of_person(name) == name


@pytest.mark.parametrize("name", NOBODYS)
def test_what_is_nobodys_name_is_refused(name):
    with pytest.raises(NameRefused, match="name: expected a person's name"):
        name_of_person(name)


@given(st.text(max_size=20))
def test_a_name_has_one_spelling_and_is_its_own_person(text):
    try:
        name = name_of_person(text)
    except NameRefused:
        return
    assert name_of_person(name) == name
    assert name.isprintable()
    assert is_same_person(name, text)


@given(st.text("an\u200b\ufeff\u00ad \u00c5A\u030a\uff21", max_size=8))
def test_what_cannot_be_seen_makes_nobody_else(text):
    assert is_same_person(text + "x", f" {text}X\u200b")
    assert not is_same_person(text + "x", text + "y")
