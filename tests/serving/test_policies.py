"""Policies of a store: who may put one in force; each decision names the one that made it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from rules.policy import Policy, PolicyError
from serving import governance, policies
from serving.facts import FACTS
from serving.persons import NameRefused
from serving.policies import (
    ActivationRefused,
    AlteredPolicyError,
    Policies,
    PolicyWatch,
    SecondPersonNeeded,
    SuccessionError,
    UnknownPolicyError,
)
from serving.settings import Settings
from serving.store.database import StoreRefusedError
from serving.store.store import Store
from tests.serving.documents import document, rule
from tests.serving.test_desk import ME, SECRET, Clock, Desk, data, kept, open_desk, report, url

__all__ = ["open_desk", "url"]  # fixtures

ONE = document("1")
TWO = document("2", rule(40_000, version=2))
THREE = document("3", rule(30_000, version=3))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store.open(url, SECRET, clock="ingest")
    yield opened
    opened.close()


@pytest.fixture
def told() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def propose(store: Store, document: str, author: str = "ann", at: int = 10) -> Any:
    return policies.propose(store, document, author=author, note=None, at=at)


def activate(store: Store, version: str, actor: str = "bob", **how: Any) -> Any:
    return policies.activate(store, version, actor=actor, at=20, **{"second_person": False, **how})


def in_force(store: Store) -> str | None:
    found = store.active_policy()
    return found.version if found else None


def problems(error: PolicyError) -> list[str]:
    return [problem.place for problem in error.problems]


# --- proposing -----------------------------------------------------------------------------------


def test_what_is_proposed_is_kept_with_author_and_note_and_does_not_act(store):
    found = policies.propose(store, ONE, author="ann", note="why", at=7)
    assert (found.version, found.author, found.note, found.created_at) == ("1", "ann", "why", 7)
    assert found.text == ONE
    assert found.hash == Policy.from_yaml(ONE, facts=FACTS).hash
    assert in_force(store) is None
    (entry,) = store.audit_about("policy:1")
    assert (entry.at, entry.actor, entry.action) == (7, "ann", "proposed")
    assert entry.content["hash"] == found.hash


def test_a_bad_policy_is_refused_with_all_its_problems_and_nothing_is_kept(store):
    bad = document("1", rule(), rule(when="amout_minor > 1.0", action="ALLOW"))
    with pytest.raises(PolicyError) as refused:
        propose(store, bad)
    assert len(refused.value.problems) >= 3  # a duplicate id, an unknown fact, an action
    assert store.policy_versions() == []
    assert store.audit_about("policy:1") == []


def test_the_same_content_again_is_the_version_that_is_there(store):
    first = propose(store, ONE)
    again = propose(store, "# another comment\n" + ONE, author="bob", at=99)
    assert again == first
    assert len(store.audit_about("policy:1")) == 1


def test_a_version_that_is_taken_is_refused(store):
    propose(store, ONE)
    with pytest.raises(PolicyError) as refused:
        propose(store, document("1", rule(40_000, version=2)))
    assert problems(refused.value) == ["version"]


def test_a_rule_that_changed_needs_a_higher_version(store):
    propose(store, ONE)
    activate(store, "1")
    with pytest.raises(SuccessionError) as refused:
        propose(store, document("2", rule(40_000)))
    assert any("large_amount" in place for place in problems(refused.value))
    assert propose(store, TWO).version == "2"


def test_a_rules_version_that_decided_is_never_reused_not_even_after_going_back(store):
    for version, one in (("1", ONE), ("2", TWO)):
        propose(store, one)
        activate(store, version)
    policies.roll_back(store, actor="bob", at=30)
    assert in_force(store) == "1"
    with pytest.raises(SuccessionError):
        propose(store, document("3", rule(35_000, version=2)))
    # The very content that decided is fine, and so is the version in force.
    assert propose(store, document("4", rule(40_000, version=2))).version == "4"
    assert propose(store, document("5")).version == "5"


def test_of_two_proposals_that_clash_only_one_can_come_into_force(store):
    propose(store, ONE)
    activate(store, "1")
    propose(store, TWO)
    propose(store, document("2b", rule(45_000, version=2)))
    activate(store, "2")
    with pytest.raises(SuccessionError):
        activate(store, "2b")
    assert in_force(store) == "2"


def test_what_decided_by_facts_of_another_time_still_holds_its_names(store):
    """Its conditions cannot be read any more; what it called its rules can."""
    old = document("old", rule(when="amount_of_old > 1.0", examples={
        "hit": [{"amount_of_old": 2}], "miss": [{"amount_of_old": 1}]}))  # fmt: skip
    kinds = {"amount_of_old": "double"}
    with store.write() as tx:
        number = Policy.from_yaml(old, facts=kinds).hash
        tx.add_policy(version="old", hash=number, text=old, author="ann", note=None, at=1)
        tx.activate_policy(number, actor="ann", at=2)
    with pytest.raises(SuccessionError) as refused:
        propose(store, TWO.replace("version: 2", "version: 1"))
    assert problems(refused.value) == ["rules.large_amount.version"]
    assert propose(store, TWO).version == "2"


def test_every_version_that_decided_is_looked_at_without_compiling_it(store, monkeypatch):
    for number in range(1, 5):
        propose(store, document(str(number), rule(number * 1_000, version=number)))
        activate(store, str(number))
    monkeypatch.setattr(governance, "loaded", None)
    governance._outline.cache_clear()
    with pytest.raises(SuccessionError) as refused:
        propose(store, document("5", rule(7_000, version=2)))
    (problem,) = refused.value.problems
    assert (problem.message, problem.nearest) == ("fell from 4", "5")
    assert propose(store, document("6", rule(7_000, version=5))).version == "6"


# --- activating ----------------------------------------------------------------------------------


def test_an_activation_is_an_audited_act(store):
    propose(store, ONE)
    act = activate(store, "1", note="read the backtest", via="key:key_1")
    assert (act.act, act.actor, act.at, act.replaced) == ("activated", "bob", 20, None)
    assert in_force(store) == "1"
    entry = store.audit_about("policy:1")[-1]
    assert (entry.actor, entry.action) == ("key:key_1", "activated")
    assert entry.content == {"hash": act.hash, "replaced": None}
    assert entry.personal == {"by": "bob", "note": "read the backtest"}
    propose(store, TWO)
    assert activate(store, "2").replaced == act.hash


def test_what_is_unknown_is_refused_by_its_nearest_name(store):
    propose(store, document("2026-07"))
    with pytest.raises(UnknownPolicyError, match=r"did you mean 2026-07\?"):
        activate(store, "2026-7")


def test_what_is_in_force_is_not_activated_again(store):
    propose(store, ONE)
    activate(store, "1")
    with pytest.raises(ActivationRefused, match="in force already"):
        activate(store, "1")
    assert len(store.policy_acts()) == 1


def test_a_first_policy_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "first.yaml").write_bytes(b"version: '1'\nnote: \xff")
    with pytest.raises(PolicyError, match=r"line 2:7 .*first\.yaml: not a text.*expected UTF-8"):
        policies.first_text(Settings(home=tmp_path, policy=tmp_path / "first.yaml"))


@pytest.mark.parametrize("actor", ["ann", "Ann", " ann "])
def test_the_second_person_is_another_person(store, actor):
    propose(store, ONE, author="ann")
    with pytest.raises(SecondPersonNeeded, match="ann wrote it"):
        activate(store, "1", actor=actor, second_person=True)
    assert in_force(store) is None
    assert [entry.action for entry in store.audit_about("policy:1")] == [
        "proposed", "activation_refused"
    ]  # fmt: skip
    activate(store, "1", actor="bob", second_person=True)
    assert in_force(store) == "1"


@pytest.mark.parametrize("actor", ["mallory\u200b", "m\u00adallory", "\u043callory", "\t", "",
                                   "mallory\ufe0f", "mallory\u3164", "\u2060"])  # fmt: skip
def test_nobody_is_a_second_person_by_a_name_that_only_looks_like_another(store, actor):
    propose(store, ONE, author="mallory")
    with pytest.raises(NameRefused):
        activate(store, "1", actor=actor, second_person=True)
    with pytest.raises(NameRefused):
        propose(store, TWO, author=actor)
    with pytest.raises(NameRefused):
        policies.roll_back(store, actor=actor, at=30)
    assert in_force(store) is None


@pytest.mark.parametrize("actor", ["\uff2dallory", "MALLORY", "mallory\u00a0", " mal lory"])
def test_another_spelling_of_a_name_is_the_same_person(store, actor):
    propose(store, ONE, author="mallory")
    with pytest.raises(SecondPersonNeeded):
        activate(store, "1", actor=actor, second_person=True)


def test_an_author_kept_before_names_were_checked_is_the_same_person(store):
    one = Policy.from_yaml(ONE, facts=FACTS)
    with store.write() as tx:
        tx.add_policy(version="1", hash=one.hash, text=ONE, author="Ann\u200b ", note=None, at=1)
    with pytest.raises(SecondPersonNeeded):
        activate(store, "1", actor="ann", second_person=True)


def test_what_is_refused_to_come_in_force_is_audited(store):
    propose(store, ONE, author="ann")
    for version, actor in (("1", "ann"), ("11", "bob")):
        with pytest.raises((SecondPersonNeeded, UnknownPolicyError)):
            activate(store, version, actor=actor, second_person=True, via=f"cli:{actor}")
    refusals = [(e.subject, e.actor, e.content, e.personal) for version in ("1", "11")
                for e in store.audit_about(f"policy:{version}")
                if e.action == "activation_refused"]  # fmt: skip
    assert refusals == [
        ("policy:1", "cli:ann", {"act": "activated", "refused": "SecondPersonNeeded"},
         {"by": "ann"}),
        ("policy:11", "cli:bob", {"act": "activated", "refused": "UnknownPolicyError"},
         {"by": "bob"}),
    ]  # fmt: skip
    with pytest.raises(UnknownPolicyError):
        activate(store, "\0" * 5_000, actor="bob")
    assert len(store.audit_about(f"policy:{'?' * 120}…")) == 1


def test_proposing_anothers_content_again_makes_nobody_else_its_author(store):
    propose(store, ONE, author="ann")
    propose(store, ONE, author="bob")
    with pytest.raises(SecondPersonNeeded):
        activate(store, "1", actor="ann", second_person=True)


def test_without_the_setting_one_person_is_enough(store):
    propose(store, ONE, author="ann")
    activate(store, "1", actor="ann")
    assert in_force(store) == "1"


class Busy(Store):
    """A store in which something happens just before a policy is put in force."""

    happening: Callable[[], None] | None = None

    @contextmanager
    def write(self, *names: str | None) -> Iterator[Any]:
        if self.happening is not None:
            happening, self.happening = self.happening, None
            happening()
        with super().write(*names) as tx:
            yield tx


def test_what_came_in_between_is_not_overrun(url):
    store = Busy.open(url, SECRET)
    for version, one in (("1", ONE), ("2", TWO), ("3", document("3"))):
        propose(store, one)
        if version == "1":
            activate(store, "1")
    store.happening = lambda: activate(store, "2")
    with pytest.raises(ActivationRefused, match="meanwhile"):
        activate(store, "3")
    assert in_force(store) == "2"
    assert [act.hash for act in store.policy_acts()] == [
        store.policy("1").hash, store.policy("2").hash
    ]  # fmt: skip
    store.close()


# --- going back ----------------------------------------------------------------------------------


def test_going_back_twice_goes_back_twice(store):
    for version, one in (("1", ONE), ("2", TWO), ("3", THREE)):
        propose(store, one)
        activate(store, version)
    seen = []
    for _ in range(2):
        act = policies.roll_back(store, actor="ann", at=30)
        seen.append((act.act, in_force(store)))
    assert seen == [("rolled_back", "2"), ("rolled_back", "1")]
    with pytest.raises(UnknownPolicyError, match="the first there was"):
        policies.roll_back(store, actor="ann", at=30)
    assert store.audit_about("policy:1")[-1].action == "rolled_back"


def test_after_going_back_a_new_activation_goes_forward(store):
    for version, one in (("1", ONE), ("2", TWO)):
        propose(store, one)
        activate(store, version)
    policies.roll_back(store, actor="ann", at=30)
    propose(store, THREE)
    activate(store, "3")
    assert policies.roll_back(store, actor="ann", at=31).hash == store.policy("1").hash


def test_going_back_needs_one_person_and_a_version_that_decided(store):
    for version, one in (("1", ONE), ("2", TWO)):
        propose(store, one, author="ann")
        activate(store, version)
    propose(store, THREE, author="ann")
    with pytest.raises(UnknownPolicyError, match="never in force"):
        policies.roll_back(store, actor="ann", at=30, to="3")
    policies.roll_back(store, actor="ann", at=30, to="1", note="too many reviews")
    assert in_force(store) == "1"
    assert store.policy_acts()[-1].note == "too many reviews"
    with pytest.raises(ActivationRefused, match="in force already"):
        policies.roll_back(store, actor="ann", at=31, to="1")


def test_one_person_brings_nothing_back_that_was_withdrawn(store):
    """Going back twice is two steps on the way here; what was gone back from is no step of it."""
    for version, one in (("1", ONE), ("2", TWO), ("3", THREE)):
        propose(store, one, author="mallory")
        activate(store, version)
    policies.roll_back(store, actor="bob", at=30)
    with pytest.raises(ActivationRefused, match=r"was withdrawn .*; activate it instead"):
        policies.roll_back(store, actor="mallory", at=31, to="3")
    (refusal,) = [e for e in store.audit_about("policy:3") if e.action == "activation_refused"]
    assert refusal.content["act"] == "rolled_back"
    assert in_force(store) == "2"
    activate(store, "1", actor="bob")  # forward to where it came from: 2 is withdrawn
    with pytest.raises(UnknownPolicyError, match=r"policy 2 was withdrawn .* activate it instead"):
        policies.roll_back(store, actor="mallory", at=32)
    with pytest.raises(ActivationRefused, match="was withdrawn"):
        policies.roll_back(store, actor="mallory", at=33, to="2")
    activate(store, "3", actor="bob", second_person=True)
    assert policies.roll_back(store, actor="mallory", at=34, to="1").hash == store.policy("1").hash


# --- a new store, and one that was tampered with -------------------------------------------------


def test_a_new_store_starts_with_the_settings_policy_and_keeps_its_own(store, tmp_path, told):
    (tmp_path / "first.yaml").write_text(ONE)
    settings = Settings(home=tmp_path, policy=tmp_path / "first.yaml")
    assert policies.start_with(store, settings, 5).version == "1"
    found = store.active_policy()
    assert (found.author, found.created_at) == ("recourse", 5)
    (tmp_path / "first.yaml").write_text(TWO)
    assert policies.start_with(store, settings, 6).version == "1"
    assert [entry["event"] for entry in told] == ["policy_setting_unused"]
    (tmp_path / "first.yaml").write_text("no policy")
    assert policies.start_with(store, settings, 7).version == "1", "it is not needed any more"


def test_workers_that_start_together_put_one_policy_in_force(url):
    stores = [Store.open(url, SECRET) for _ in range(4)]
    start = threading.Barrier(len(stores))

    def begin(one: Store) -> str:
        start.wait()
        return policies.ensure_first(one, ONE, 5).version

    with ThreadPoolExecutor(len(stores)) as pool:
        assert list(pool.map(begin, stores)) == ["1"] * len(stores)
    assert len(stores[0].policy_acts()) == 1
    for one in stores:
        one.close()


def test_a_bad_first_policy_is_refused_with_every_problem(store):
    with pytest.raises(PolicyError) as refused:
        policies.ensure_first(store, "{version: 1, ruels: []}", 5)
    assert len(refused.value.problems) >= 3
    assert store.active_policy() is None


def tampered(store: Store, version: str, was: str, becomes: str) -> None:
    """Change a kept text behind the program's back, as an attacker with the database's file could.

    The trigger that refuses it stands in the same file.
    """
    with store.database.write() as connection:
        found = connection.execute(
            text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'policies'")
        )
        for (name,) in found.fetchall():
            connection.execute(text(f"DROP TRIGGER {name}"))
        changed = connection.execute(
            text("UPDATE policies SET text = replace(text, :was, :becomes) WHERE version = :v"),
            {"was": was, "becomes": becomes, "v": version},
        )
        assert changed.rowcount == 1


def test_a_text_that_was_altered_is_refused_wherever_it_would_decide(store):
    for version, one in (("1", ONE), ("2", TWO)):
        propose(store, one)
        activate(store, version)
    running = Policies(policies.active(store))
    tampered(store, "1", "at_least: 0.9", "at_least: 0.99")
    with pytest.raises(AlteredPolicyError, match="expected hash"):
        policies.roll_back(store, actor="bob", at=30)
    tampered(store, "2", "at_least: 0.9", "at_least: 0.99")
    with pytest.raises(AlteredPolicyError, match="policy 2: its text"):
        policies.active(store)
    watch = PolicyWatch(store, running)
    watch.look()
    assert running.now.hash == store.policy("2").hash, "it was loaded before, and stays"


def test_the_policy_in_force_is_the_stores_and_else_the_settings(tmp_path):
    settings = Settings(home=tmp_path / "home", secret="s" * 32)
    assert policies.policy_in_force(settings, "live").version == Policy.from_yaml(
        policies.DEFAULT_POLICY.read_text(), facts=FACTS
    ).version  # fmt: skip
    assert not settings.home.exists(), "asking makes nothing"
    settings.home.mkdir()
    store = Store.open(settings.database_url_of("sandbox"), settings.secret_bytes())
    propose(store, document("sandbox-1"))
    activate(store, "sandbox-1")
    store.close()
    assert policies.policy_in_force(settings, "test").version == "sandbox-1"
    assert policies.policy_in_force(settings, "sandbox").version == "sandbox-1"
    assert policies.policy_in_force(settings, "live").version != "sandbox-1"
    with pytest.raises(StoreRefusedError, match="secret"):
        policies.policy_in_force(settings.model_copy(update={"secret": None}), "test")


# --- taking up -----------------------------------------------------------------------------------


@pytest.fixture
def running(store: Store) -> Policies:
    policies.ensure_first(store, ONE, 5)
    return Policies(policies.active(store))


def test_what_is_put_in_force_is_taken_up_and_taken_back(store, running, told):
    watch = PolicyWatch(store, running)
    watch.look()
    propose(store, TWO)
    watch.look()
    assert running.now.version == "1", "a proposal does not act"
    activate(store, "2")
    watch.look()
    assert running.now.version == "2"
    policies.roll_back(store, actor="bob", at=30)
    watch.look()
    assert running.now.version == "1"
    taken = [(e["version"], e["replaced"]) for e in told if e["event"] == "policy_taken_up"]
    assert taken == [("2", "1"), ("1", "2")]


def test_a_policy_is_loaded_once(store, running):
    watch = PolicyWatch(store, running)
    propose(store, TWO)
    activate(store, "2")
    watch.look()
    taken = running.now
    watch.look()
    assert running.now is taken


def test_what_cannot_be_loaded_is_refused_once_and_the_running_one_stays(store, running, told):
    watch = PolicyWatch(store, running)
    watch.look()
    propose(store, TWO)
    activate(store, "2")
    tampered(store, "2", "40000.0", "1.0")
    watch.look()
    watch.look()
    assert running.now.version == "1"
    refused = [entry for entry in told if entry["event"] == "policy_refused"]
    assert [(entry["version"], entry["then"]) for entry in refused] == [("2", "version 1 stays")]
    propose(store, THREE)
    activate(store, "3")
    watch.look()
    assert running.now.version == "3", "what is put in force next is looked at"


class Gone(Store):
    """A store that cannot be reached for a while."""

    is_gone = False

    def last_policy_act(self) -> int:
        if self.is_gone:
            raise OperationalError("SELECT", None, OSError("no route"))
        return super().last_policy_act()


def test_a_store_that_is_away_is_asked_again_and_complained_of_once(url, told):
    store = Gone.open(url, SECRET)
    policies.ensure_first(store, ONE, 5)
    running = Policies(policies.active(store))
    watch = PolicyWatch(store, running)
    propose(store, TWO)
    activate(store, "2")
    store.is_gone = True
    watch.look()
    watch.look()
    assert len([entry for entry in told if entry["event"] == "policy_refused"]) == 1
    store.is_gone = False
    watch.look()
    assert running.now.version == "2"
    store.close()


def test_the_watch_runs_by_itself_and_ends(store, running, monkeypatch):
    monkeypatch.setattr(policies, "LOOK_SECONDS", 0.01)
    looked = threading.Event()
    watch = PolicyWatch(store, running)
    monkeypatch.setattr(watch, "look", looked.set)
    watch.start()
    assert looked.wait(10)
    watch.stop()
    assert not watch._thread.is_alive()


# --- while it decides ----------------------------------------------------------------------------


def test_every_decision_bears_the_policy_that_made_it_while_others_are_activated(open_desk):
    desk: Desk = open_desk()
    policies.ensure_first(desk.store, ONE, 5)
    desk.policies.put(policies.active(desk.store))
    watch, now = PolicyWatch(desk.store, desk.policies), Clock()
    documents = {"1": ONE}
    first, done = threading.Event(), threading.Event()

    def switch() -> None:
        first.wait(10)
        for number in range(2, 12):
            at_least = 50_000 - 1_000 * number
            documents[str(number)] = document(str(number), rule(at_least, version=number))
            propose(desk.store, documents[str(number)])
            activate(desk.store, str(number))
            watch.look()
        done.set()

    def decide(number: int) -> dict[str, Any]:
        # Each amount lies between what one policy holds and what the next one does.
        answer = desk.decide(report(refund_id=f"r-{number}", amount=40_000), now, ME)
        first.set()
        return answer

    with ThreadPoolExecutor(2) as pool:
        switching = pool.submit(switch)
        answers = [decide(0)]
        while not done.is_set() and not switching.done():
            answers.append(decide(len(answers)))
        switching.result()
        answers.append(decide(len(answers)))
    seen = [data(answer)["policyVersion"] for answer in answers]
    assert seen[0] == "1"
    assert seen[-1] == "11"
    assert seen == sorted(seen, key=int), "never back"
    for answer in answers:
        decision = kept(desk, answer)["decision"]
        one = Policy.from_yaml(documents[data(answer)["policyVersion"]], facts=FACTS)
        assert decision["policy_hash"] == one.hash
        expected = "MANUAL_REVIEW" if int(one.version) >= 10 else "ALLOW"
        assert data(answer)["action"] == expected


# --- what somebody saw before they asked ---------------------------------------------------------


def test_what_is_put_in_force_replaces_what_whoever_asked_saw(store):
    one, two, three = (propose(store, text) for text in (ONE, TWO, THREE))
    activate(store, "1")
    with pytest.raises(ActivationRefused, match="put in force meanwhile"):
        activate(store, "2", instead_of=three.hash)
    activate(store, "2", instead_of=one.hash)
    activate(store, "3", instead_of=two.hash)
    assert [kept.version for kept in governance.ways_back(store)] == ["2", "1"]
    with pytest.raises(ActivationRefused, match="put in force meanwhile"):
        governance.roll_back(store, actor="bob", at=30, to="1", instead_of=two.hash)
    governance.roll_back(store, actor="bob", at=30, to="1", instead_of=three.hash)
    assert (in_force(store), governance.ways_back(store)) == ("1", [])
    refused = [entry for entry in store.audit_about("policy:2") if entry.action.endswith("refused")]
    assert [entry.content["refused"] for entry in refused] == ["ActivationRefused"]
