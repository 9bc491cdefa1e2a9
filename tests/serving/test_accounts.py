"""Accounts: who comes in, who does not, and that a refusal tells nothing."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyotp
import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import proofs
from serving.accounts import (
    IDLE_MS,
    INVITED_MS,
    MINUTE_MS,
    REMEMBERED_MS,
    SEEN_MS,
    TRIES,
    WHOLE_MS,
    AccountConflictError,
    InvitationError,
    SignInRefusedError,
    UnknownAccountError,
    change,
    change_password,
    disable,
    enable,
    end_sessions,
    enrol,
    find,
    invitation,
    invite,
    invite_again,
    limit_of,
    session_of,
    sign_in,
    sign_out,
)
from serving.console.accounts import _plain
from serving.proofs import STEP_MS, password_problem
from serving.store.accounts import Account
from serving.store.rotation import rotate
from serving.store.store import Store
from serving.wire import InvalidRequest
from tests.serving.conftest import SECRET

AT = 1_800_000_000_000
PASSWORD = "correct horse battery staple"
BY: dict[str, Any] = {"by": "root", "via": "cli:root"}
NOT_RIGHT = "the name, the password or the code is not right"


class Cheap(PasswordHasher):
    """Counts how often it is asked to check a password."""

    verified = 0

    def verify(self, *given: Any) -> Any:
        Cheap.verified += 1
        return super().verify(*given)


USUAL = proofs.HASHER


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> type[Cheap]:
    """A hasher that takes no time to speak of."""
    Cheap.verified = 0
    monkeypatch.setattr(proofs, "HASHER", Cheap(time_cost=1, memory_cost=8, parallelism=1))
    return Cheap


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('accounts')}/s.db", SECRET)
    yield store
    store.close()


@pytest.fixture
def store(kept: Store) -> Store:
    """An empty store, of which the file is made once."""
    with kept.database.write() as connection:
        for table in ("accounts", "sessions", "sign_in_tries"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    return kept


@pytest.fixture
def either(store_url: str) -> Iterator[Store]:
    """An empty store of either kind."""
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


class Person(NamedTuple):
    """Somebody with a password and a phone."""

    account: Account
    secret: str
    token: str

    def code(self, at: int) -> str:
        return pyotp.TOTP(self.secret).at(at // 1000)


def enrolled(store: Store, name: str = "Ann Lee", role: str = "admin", at: int = AT) -> Person:
    """Somebody who took up an invitation, a while ago: no code of now is taken yet."""
    before = at - 10 * STEP_MS
    account, token = invite(store, name, role, None, at=before, **BY)
    secret = invitation(store, token, before).secret
    code = pyotp.TOTP(secret).at(before // 1000)
    session = enrol(store, token, PASSWORD, PASSWORD, code, at=before)
    return Person(find(store, account.id), secret, session)


def refused(store: Store, name: str, password: str, code: str, at: int = AT) -> SignInRefusedError:
    with pytest.raises(SignInRefusedError) as error:
        sign_in(store, name, password, code, at=at)
    return error.value


def actions(store: Store, account: Account) -> list[str]:
    return [entry.action for entry in store.audit_about(account.subject)]


# --- signing in ----------------------------------------------------------------------------------


def test_somebody_is_invited_enrols_signs_in_and_out(store: Store) -> None:
    ann = enrolled(store)
    token = sign_in(store, " ann  LEE", PASSWORD, ann.code(AT), at=AT)
    session = session_of(store, token, AT + 1)
    assert session is not None
    assert (session.account, session.began_at) == (ann.account, AT)
    assert session.is_form_of(session.csrf)
    other = session_of(store, ann.token, AT)
    assert other is not None
    assert not session.is_form_of(other.csrf)
    sign_out(store, token, at=AT + 2)
    assert session_of(store, token, AT + 3) is None
    assert session_of(store, ann.token, AT + 3) is not None
    assert actions(store, ann.account) == [
        "account_invited", "account_enrolled", "signed_in", "signed_in", "signed_out"
    ]  # fmt: skip
    [entry] = [e for e in store.audit_about(ann.account.subject) if e.action == "account_invited"]
    assert (entry.actor, entry.content["role"]) == ("cli:root", "admin")
    assert entry.personal == {"name": "Ann Lee", "by": "root"}


def test_neither_tokens_passwords_nor_secrets_are_kept_as_they_are(store: Store) -> None:
    ann = enrolled(store)
    with store.database.read() as connection:
        rows = [
            connection.exec_driver_sql(f"SELECT * FROM {table}").all()
            for table in ("accounts", "sessions", "audit_log", "sign_in_tries")
        ]
    text = repr(rows)
    assert "argon2id" in text
    assert not any(secret in text for secret in (PASSWORD, ann.secret, ann.token))


def test_a_refusal_is_the_same_whatever_is_wrong_and_takes_the_same_work(
    store: Store, cheap: type[Cheap]
) -> None:
    ann = enrolled(store)
    gone = enrolled(store, "Gone")
    disable(store, gone.account.id, at=AT, **BY)
    invite(store, "New", "agent", 0, at=AT, **BY)
    told = set()
    for name, password, code in (
        ("Nobody", PASSWORD, ann.code(AT)), ("Ann Lee", "wrong", ann.code(AT)),
        ("Ann Lee", PASSWORD, "000000"), ("Gone", PASSWORD, gone.code(AT)), ("New", "x", "1"),
        ("", "", ""), ("\ud800" * 3, "\ud800", "\ud800"), ("x" * 10_000, "x" * 10_000, "é" * 99),
    ):  # fmt: skip
        cheap.verified = 0
        error = refused(store, name, password, code)
        told.add((str(error), error.locked_until))
        assert cheap.verified == 1, name
    assert told == {(NOT_RIGHT, None)}
    whys = [e.content["why"] for e in store.audit_about("account:unknown")][-4:]
    assert set(whys) == {"nobody of that name"}


def test_a_code_is_good_once_and_around_its_time(store: Store) -> None:
    ann = enrolled(store)
    sign_in(store, "Ann Lee", PASSWORD, ann.code(AT), at=AT)
    refused(store, "Ann Lee", PASSWORD, ann.code(AT), at=AT + 1)
    refused(store, "Ann Lee", PASSWORD, ann.code(AT - STEP_MS), at=AT + 1)
    late = AT + 10 * STEP_MS
    refused(store, "Ann Lee", PASSWORD, ann.code(late - 2 * STEP_MS), at=late)
    refused(store, "Ann Lee", PASSWORD, ann.code(late + 2 * STEP_MS), at=late)
    code = ann.code(late - STEP_MS)
    sign_in(store, "Ann Lee", PASSWORD, f" {code[:3]} {code[3:]}", at=late)
    sign_in(store, "Ann Lee", PASSWORD, ann.code(late + STEP_MS), at=late)


def test_failures_make_whoever_tries_a_name_wait_whether_or_not_anybody_has_it(
    store: Store, cheap: type[Cheap]
) -> None:
    ann = enrolled(store)
    for name in ("Ann Lee", "Nobody"):
        locked = [refused(store, name, "wrong", "000000").locked_until for _ in range(TRIES + 1)]
        assert locked == [None] * (TRIES - 1) + [AT + MINUTE_MS] * 2
    cheap.verified = 0
    error = refused(store, "Ann Lee", PASSWORD, ann.code(AT), at=AT + MINUTE_MS - 1)
    assert error.locked_until == AT + MINUTE_MS
    assert cheap.verified == 0, "neither right nor wrong is looked at meanwhile"
    at = AT + MINUTE_MS
    waits = []
    for _ in range(6):
        until = refused(store, "Nobody", "x", "x", at=at).locked_until
        assert until is not None
        waits.append((until - at) // MINUTE_MS)
        at = until
    assert waits == [2, 4, 8, 15, 15, 15]
    sign_in(store, "Ann Lee", PASSWORD, ann.code(AT + MINUTE_MS), at=AT + MINUTE_MS)
    assert refused(store, "Ann Lee", "x", "x", at=AT + MINUTE_MS).locked_until is None, "anew"


def test_failures_are_forgotten_after_a_day_and_locks_of_a_wrong_clock_at_once(
    store: Store,
) -> None:
    for _ in range(TRIES - 1):
        refused(store, "Nobody", "x", "x")
    assert refused(store, "Nobody", "x", "x", at=AT + REMEMBERED_MS).locked_until is None
    ahead = AT + 3 * REMEMBERED_MS
    for _ in range(TRIES):
        refused(store, "Somebody", "x", "x", at=ahead)
    assert str(refused(store, "Somebody", "x", "x", at=AT + REMEMBERED_MS)) != ""
    sole = enrolled(store)
    refused(store, "Ann Lee", "x", "x", at=ahead)
    sign_in(store, "Ann Lee", PASSWORD, sole.code(AT), at=AT)


def in_parallel(work: Callable[[], Any], times: int) -> list[Any]:
    """What comes of doing something at the same time: a result, or what was raised."""
    start = threading.Barrier(times)

    def one() -> Any:
        start.wait()
        try:
            return work()
        except SignInRefusedError as error:
            return error

    with ThreadPoolExecutor(times) as pool:
        return [job.result() for job in [pool.submit(one) for _ in range(times)]]


def test_of_many_guesses_at_once_no_more_are_looked_at_than_one_after_another(
    either: Store, cheap: type[Cheap]
) -> None:
    enrolled(either)
    proofs._decoy(proofs.HASHER)
    cheap.verified = 0
    results = in_parallel(lambda: sign_in(either, "Ann Lee", "wrong", "000000", at=AT), 12)
    assert all(isinstance(result, SignInRefusedError) for result in results)
    assert cheap.verified == TRIES


def test_of_two_who_have_the_same_code_one_comes_in(either: Store) -> None:
    ann = enrolled(either)
    results = in_parallel(lambda: sign_in(either, "Ann Lee", PASSWORD, ann.code(AT), at=AT), 3)
    assert sum(isinstance(result, str) for result in results) == 1


def test_a_hash_of_other_parameters_is_renewed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = enrolled(store)
    monkeypatch.setattr(proofs, "HASHER", Cheap(time_cost=2, memory_cost=16, parallelism=1))
    sign_in(store, "Ann Lee", PASSWORD, ann.code(AT), at=AT)
    with store.database.read() as connection:
        assert "m=16,t=2" in str(store.accounts.credentials(connection, ann.account.id).password)
    late = AT + STEP_MS
    sign_in(store, "Ann Lee", PASSWORD, ann.code(late), at=late)


def test_the_hasher_in_use_is_the_recommended_one() -> None:
    assert (USUAL.memory_cost, USUAL.time_cost, USUAL.type.name) == (65_536, 3, "ID")


# --- sessions ------------------------------------------------------------------------------------


def test_a_session_ends_when_it_is_left_and_at_its_end(store: Store) -> None:
    token = enrolled(store).token
    began = AT - 10 * STEP_MS
    assert session_of(store, token, began + IDLE_MS) is None
    at = began
    while at + IDLE_MS // 2 < began + WHOLE_MS:
        at += IDLE_MS // 2
        assert session_of(store, token, at) is not None, "it is used"
    assert session_of(store, token, began + WHOLE_MS) is None
    assert session_of(store, "", AT) is None
    assert session_of(store, "x" * 43, AT) is None


def test_that_a_session_is_used_is_written_once_a_minute(store: Store) -> None:
    token = enrolled(store, at=AT).token
    began = AT - 10 * STEP_MS

    def seen() -> int:
        session = session_of(store, token, began)
        assert session is not None
        return session.seen_at

    session_of(store, token, began + SEEN_MS - 1)
    assert seen() == began
    session_of(store, token, began + SEEN_MS)
    assert seen() == began + SEEN_MS


def test_what_is_changed_about_somebody_counts_in_their_sessions_at_once(store: Store) -> None:
    enrolled(store)
    bob = enrolled(store, "Bob", "manager")
    change(store, bob.account.id, "agent", 500, at=AT, **BY)
    session = session_of(store, bob.token, AT)
    assert session is not None
    assert (session.account.role, session.account.limit_minor) == ("agent", 500)
    disable(store, bob.account.id, at=AT, **BY)
    assert session_of(store, bob.token, AT) is None
    enable(store, bob.account.id, at=AT, **BY)
    assert session_of(store, bob.token, AT) is None, "it has ended for good"
    sign_in(store, "Bob", PASSWORD, bob.code(AT), at=AT)
    last = store.audit_about(bob.account.subject)[-4]
    assert last.content["changes"] == {
        "role": {"from": "manager", "to": "agent"}, "limit_minor": {"from": None, "to": 500}
    }  # fmt: skip


def test_sessions_of_ones_own_are_ended_one_or_all_others(store: Store) -> None:
    ann, bob = enrolled(store), enrolled(store, "Bob")
    tokens = [
        sign_in(store, "Ann Lee", PASSWORD, ann.code(at), at=at)
        for at in (AT, AT + STEP_MS, AT + 2 * STEP_MS)
    ]
    at = AT + 2 * STEP_MS
    here, there = session_of(store, tokens[0], at), session_of(store, bob.token, at)
    assert here is not None and there is not None
    assert end_sessions(store, ann.account, only=there.id, at=at) == 0, "another's is not ended"
    assert end_sessions(store, ann.account, besides=here.id, at=at) == 3
    assert session_of(store, tokens[0], at) is not None
    assert session_of(store, tokens[1], at) is None
    assert session_of(store, bob.token, at) is not None


def test_sessions_that_are_over_are_deleted(store: Store) -> None:
    ann = enrolled(store)
    late = AT + WHOLE_MS
    sign_in(store, "Ann Lee", PASSWORD, ann.code(late), at=late)
    assert len(store.accounts.sessions_of(ann.account.id)) == 1


def test_a_password_is_changed_by_whoever_knows_it_and_has_the_phone(store: Store) -> None:
    ann = enrolled(store)
    here = session_of(store, sign_in(store, "Ann Lee", PASSWORD, ann.code(AT), at=AT), AT)
    assert here is not None
    new, at = "an entirely other one", AT + STEP_MS
    with pytest.raises(SignInRefusedError, match=NOT_RIGHT):
        change_password(store, here, "wrong", ann.code(at), new, new, at=at)
    with pytest.raises(SignInRefusedError, match=NOT_RIGHT):
        change_password(store, here, PASSWORD, ann.code(AT), new, new, at=at)
    with pytest.raises(InvalidRequest, match="again: must be the same password once more"):
        change_password(store, here, PASSWORD, ann.code(at), new, PASSWORD, at=at)
    change_password(store, here, PASSWORD, ann.code(at), new, new, at=at)
    assert session_of(store, ann.token, at) is None, "every other session has ended"
    assert session_of(store, _only(store, ann), at) is None
    later = at + STEP_MS
    refused(store, "Ann Lee", PASSWORD, ann.code(later), at=later)
    sign_in(store, "Ann Lee", new, ann.code(later), at=later)
    assert actions(store, ann.account).count("password_change_refused") == 2


def _only(store: Store, person: Person) -> str:
    [session] = store.accounts.sessions_of(person.account.id)
    return session.id  # which is no token


def test_guesses_at_a_password_from_a_session_that_was_taken_are_counted(store: Store) -> None:
    ann = enrolled(store)
    here = session_of(store, ann.token, AT)
    assert here is not None
    for _ in range(TRIES):
        with pytest.raises(SignInRefusedError):
            change_password(store, here, "wrong", "000000", PASSWORD + "!", PASSWORD + "!", at=AT)
    assert refused(store, "Ann Lee", PASSWORD, ann.code(AT)).locked_until == AT + MINUTE_MS


# --- invitations ---------------------------------------------------------------------------------


def test_an_invitation_is_good_once_until_its_end_and_until_the_next(store: Store) -> None:
    account, token = invite(store, "Bob", "agent", 500, at=AT, **BY)
    assert (account.invited_until, account.is_enrolled) == (AT + INVITED_MS, False)
    invited = invitation(store, token, AT + INVITED_MS - 1)
    with pytest.raises(InvitationError):
        invitation(store, token, AT + INVITED_MS)
    code = pyotp.TOTP(invited.secret).at(AT // 1000)
    for password, again, given_code, told in (
        ("short", "short", code, "password: must have 12 to 128 characters, got 5"),
        (PASSWORD, "other", code, "again: "), (PASSWORD, PASSWORD, "12", "code: "),
        (PASSWORD, PASSWORD, "", "code: "),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match=told):
            enrol(store, token, password, again, given_code, at=AT)
    assert invitation(store, token, AT).secret == invited.secret, "what was scanned stays good"
    enrol(store, token, PASSWORD, PASSWORD, code, at=AT)
    with pytest.raises(InvitationError):
        enrol(store, token, PASSWORD, PASSWORD, code, at=AT)
    refused(store, "Bob", PASSWORD, code)
    _, other = invite_again(store, account.id, at=AT, **BY)
    with pytest.raises(InvitationError):
        invitation(store, "", AT)
    late = AT + STEP_MS
    refused(store, "Bob", PASSWORD, pyotp.TOTP(invited.secret).at(late // 1000), at=late)
    _, last = invite_again(store, account.id, at=AT, **BY)
    with pytest.raises(InvitationError):
        invitation(store, other, AT)
    assert invitation(store, last, AT).secret != invited.secret
    disable(store, account.id, at=AT, **BY)
    with pytest.raises(InvitationError):
        invitation(store, last, AT)
    with pytest.raises(AccountConflictError, match="Bob is disabled: enable the account first"):
        invite_again(store, account.id, at=AT, **BY)


def test_who_is_invited_again_is_signed_out_and_need_not_wait(store: Store) -> None:
    ann = enrolled(store)
    for _ in range(TRIES):
        refused(store, "Ann Lee", "x", "x")
    assert store.accounts.locked(AT) == {ann.account.id: AT + MINUTE_MS}
    invite_again(store, ann.account.id, at=AT, **BY)
    assert session_of(store, ann.token, AT) is None
    assert not store.accounts.locked(AT)
    with pytest.raises(AccountConflictError, match="nobody invites themselves again"):
        invite_again(store, ann.account.id, by="Ann Lee", via=ann.account.subject, at=AT)


def test_an_invitation_is_taken_up_by_one_of_two(either: Store) -> None:
    _, token = invite(either, "Bob", "agent", 0, at=AT, **BY)
    code = pyotp.TOTP(invitation(either, token, AT).secret).at(AT // 1000)

    def take_up() -> str:
        try:
            return enrol(either, token, PASSWORD, PASSWORD, code, at=AT)
        except InvitationError:
            return ""

    assert sum(map(bool, in_parallel(take_up, 3))) == 1


@pytest.mark.parametrize(
    ("name", "role", "limit", "told"),
    [
        ("", "agent", 0, "name: expected a person's name"),
        ("\u0430nn", "agent", 0, "letters of CYRILLIC and LATIN"),
        ("Cy", "boss", 0, 'role: must be one of viewer, agent, .*, got "boss"'),
        ("Cy", "agent", -1, "limit: must be 0 or more"),
        ("Cy", "agent", 2**60, "limit: must be 0 or more"),
    ],
)
def test_what_is_no_account_is_not_made(
    store: Store, name: str, role: str, limit: int, told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        invite(store, name, role, limit, at=AT, **BY)
    assert store.accounts.all() == []


def test_a_name_is_one_persons(either: Store) -> None:
    invite(either, "Ann Lee", "agent", 0, at=AT, **BY)
    for name in ("ann lee", "AnnLee", "Ａnn Lee"):
        with pytest.raises(AccountConflictError, match="Ann Lee has an account already"):
            invite(either, name, "agent", 0, at=AT, **BY)
    assert find(either, "ANN LEE").name == "Ann Lee"
    with pytest.raises(UnknownAccountError, match=r"nobody has 'An Lee'; did you mean Ann Lee\?"):
        find(either, "An Lee")


# --- what an account may -------------------------------------------------------------------------


def test_an_admin_who_can_sign_in_is_always_left(store: Store) -> None:
    ann = enrolled(store)
    invite(store, "Cy", "admin", None, at=AT, **BY)  # is not enrolled, so nobody yet
    sole = "Ann Lee is the only admin who can sign in: make another one first"
    with pytest.raises(AccountConflictError, match=sole):
        disable(store, ann.account.id, at=AT, **BY)
    with pytest.raises(AccountConflictError, match=sole):
        change(store, ann.account.id, "manager", 0, at=AT, **BY)
    change(store, ann.account.id, "admin", 500, at=AT, **BY)
    bob = enrolled(store, "Bob")
    change(store, ann.account.id, "viewer", None, at=AT, **BY)
    assert find(store, "Ann Lee").limit_minor == 0, "who acts on no reviews approves none"
    with pytest.raises(AccountConflictError, match="Bob is the only admin"):
        disable(store, bob.account.id, at=AT, **BY)


def test_of_two_admins_who_disable_each_other_one_is_left(either: Store) -> None:
    ann, bob = enrolled(either), enrolled(either, "Bob")
    start = threading.Barrier(2)

    def end(other: Person) -> bool:
        start.wait()
        try:
            disable(either, other.account.id, at=AT, **BY)
        except AccountConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(end, (ann, bob))) == [False, True]


def test_nobody_changes_what_they_may_themselves(store: Store) -> None:
    ann = enrolled(store)
    enrolled(store, "Bob")
    for by in ({"by": "someone", "via": ann.account.subject}, {"by": "ann lee", "via": "cli:x"}):
        for act in (disable, enable):
            with pytest.raises(AccountConflictError, match="nobody changes what they may"):
                act(store, ann.account.id, at=AT, **by)
        with pytest.raises(AccountConflictError, match="nobody changes what they may"):
            change(store, ann.account.id, "admin", 1, at=AT, **by)
    with pytest.raises(UnknownAccountError):
        disable(store, "acc_0", at=AT, **BY)


def test_who_is_enabled_need_not_wait(store: Store) -> None:
    ann = enrolled(store)
    for _ in range(TRIES):
        refused(store, "Ann Lee", "x", "x")
    enable(store, ann.account.id, at=AT, **BY)
    sign_in(store, "Ann Lee", PASSWORD, ann.code(AT), at=AT)
    assert actions(store, ann.account)[-2:] == ["account_unlocked", "signed_in"]


def test_codes_are_good_under_another_secret_of_the_store(either_url: str) -> None:
    store = Store.open(either_url, SECRET)
    ann = enrolled(store)
    refused(store, "Ann Lee", "x", "x")
    store.close()
    new = b"another secret, as long as the first"
    assert rotate(either_url, SECRET, new, actor="root", at=AT).rows["accounts"] == 1
    store = Store.open(either_url, new, create=False)
    assert session_of(store, ann.token, AT) is not None
    sign_in(store, "Ann Lee", PASSWORD, ann.code(AT), at=AT)
    store.close()


# --- passwords, codes and limits -----------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    ["", "x" * 11, "x" * 129, "aaaaaaaaaaaaaaa", "abababababab", "abcdabcdabcd", "123456789012",
     "abcdefghijklmnop", "ann-katrin-lee", "Ann Katrin Lee!!", " " * 14, "ponmlkjihgfedcba"],
)  # fmt: skip
def test_a_password_that_is_easily_guessed_is_refused(password: str) -> None:
    assert password_problem(password, "Ann-Katrin Lee") or password_problem(
        password, "Ann Katrin Lee"
    )


@given(st.text(min_size=12, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_password_is_itself_however_its_characters_are_put_together(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC"):
        other = unicodedata.normalize(form, text)
        assert proofs.normal(other) == proofs.normal(text)
    assert password_problem(text, "Ann") is None or isinstance(password_problem(text, "Ann"), str)


@given(st.integers(0, 10**12 - 1), st.sampled_from(["GBP", "JPY", "KWD"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_limit_is_read_as_it_is_written(minor: int, currency: str) -> None:
    assert limit_of(_plain(minor, currency), currency) == minor


@pytest.mark.parametrize(
    "text", ["", "-1", "1e3", "1,5", "1.555", "£5", "١", "1." + "0" * 3, "9" * 13]
)
def test_what_is_no_limit_is_told_with_an_example(text: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"limit: must be an amount of GBP as 1500 or 1500\.00"
    ):
        limit_of(text, "GBP")


def test_a_password_that_is_typed_as_a_name_is_not_kept(store: Store) -> None:
    refused(store, "my password, in the wrong field", "x", "x")
    with store.database.read() as connection:
        kept = connection.exec_driver_sql("SELECT * FROM sign_in_tries").all()
        audited = store.audit_log.latest(connection, subject="account:unknown", limit=5)
    assert "wrong field" not in repr(kept)
    assert all("wrong field" not in repr(entry) for entry in audited)
