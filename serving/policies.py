"""The policy of a store: which one decides, and how another is taken up.

A store keeps every version for ever and one of them is in force. Each desk holds that one, loaded;
a decision takes it once, at its start, so that what is put in force meanwhile is for the next. In
each worker a thread looks every second whether something was put in force, off the way of
decisions. A policy that cannot be loaded, or whose text is not what was kept, changes nothing: the
running one stays. `serving.governance` says who may put one in force.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import sqlalchemy
import structlog

import rules
from rules.policy import Policy, PolicyError, load_policy, policy_text
from serving.facts import FACTS
from serving.governance import (
    ActivationRefused,
    AlteredPolicyError,
    NobodyNamed,
    SecondPersonNeeded,
    SuccessionError,
    UnknownPolicyError,
    activate,
    ensure_first,
    kept_version,
    loaded,
    person_of,
    propose,
    refuse_unnamed,
    roll_back,
)
from serving.settings import Settings
from serving.store.database import STORE_UNAVAILABLE, Database
from serving.store.policies import PolicyVersion
from serving.store.schema import meta
from serving.store.store import Store

__all__ = [
    "DEFAULT_POLICY",
    "ActivationRefused",
    "AlteredPolicyError",
    "NobodyNamed",
    "Policies",
    "PolicyWatch",
    "SecondPersonNeeded",
    "SuccessionError",
    "UnknownPolicyError",
    "activate",
    "active",
    "ensure_first",
    "first_text",
    "kept_version",
    "load_settings_policy",
    "loaded",
    "person_of",
    "policy_in_force",
    "propose",
    "refuse_unnamed",
    "roll_back",
    "start_with",
]

LOOK_SECONDS: Final = 1.0
"""How often a worker looks whether another policy was put in force."""

DEFAULT_POLICY: Final = Path(rules.__file__).parent / "policies" / "default.yaml"

log = structlog.get_logger()


# --- loading -----------------------------------------------------------------------------------


def active(store: Store, facts: Mapping[str, str] = FACTS) -> Policy:
    """The policy in force; raises as `loaded`, UnknownPolicyError where there is none."""
    kept = store.active_policy()
    if kept is None:
        raise UnknownPolicyError(
            "the store has no policy in force: the first start of the service or `recourse policy "
            "activate` puts one in force"
        )
    return loaded(kept, facts)


def first_text(settings: Settings) -> str:
    """The text of the policy that a new store starts with; raises OSError, PolicyError."""
    return policy_text(settings.policy or DEFAULT_POLICY)


def load_settings_policy(settings: Settings) -> Policy:
    """The policy that the settings name for a new store, or the one that comes with Recourse."""
    return load_policy(settings.policy or DEFAULT_POLICY, FACTS)


def policy_in_force(settings: Settings, mode: Literal["live", "sandbox", "test"]) -> Policy:
    """The policy in force in a mode's store; where there is none yet, the one it will start with.

    Makes neither a store nor a secret. Raises as `loaded`, and StoreRefusedError for a store that
    this program must not use.
    """
    url = settings.database_url_of("live" if mode == "live" else "sandbox")
    if _holds_a_store(url):
        store = Store.open(url, settings.secret_bytes(), create=False)
        try:
            if store.active_policy() is not None:
                return active(store)
        finally:
            store.close()
    return load_settings_policy(settings)


def _holds_a_store(url: str) -> bool:
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return False
    database = Database(url)
    try:
        with database.read() as connection:
            return sqlalchemy.inspect(connection).has_table(meta.name)
    finally:
        database.close()


def start_with(store: Store, settings: Settings, at: int) -> Policy:
    """The policy that a store decides by from its opening on, put in force where there is none.

    Raises PolicyError and AlteredPolicyError for one that cannot decide, and OSError for a file
    that the settings name and that is needed. One that is named and not needed is said to be so.
    """
    if store.active_policy() is None:
        ensure_first(store, first_text(settings), at)
    policy = active(store)
    if settings.policy is not None:
        try:
            named: str | None = load_settings_policy(settings).hash
        except (OSError, PolicyError):
            named = None
        if named != policy.hash:
            log.warning(
                "policy_setting_unused",
                setting=str(settings.policy),
                in_force=policy.version,
                then="the setting is for a new store: add and activate it instead",
            )
    return policy


# --- in a worker -------------------------------------------------------------------------------


class Policies:
    """The policy of one desk.

    Read by the thread that decides and replaced whole by the one that watches; either is one step
    of the interpreter.
    """

    def __init__(self, policy: Policy) -> None:
        self.now = policy

    def put(self, policy: Policy) -> None:
        """Decide by this policy from the next decision on."""
        self.now = policy


class PolicyWatch:
    """Takes up what is put in force in a store, for one desk."""

    def __init__(self, store: Store, policies: Policies) -> None:
        self._store, self._policies = store, policies
        self._settled: int | None = None
        self._unreachable = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="policy-watch", daemon=True)

    def start(self) -> None:
        """Look every `LOOK_SECONDS` from now on, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a policy that is being loaded is loaded to its end."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Take up what was put in force since the last look.

        What is refused is logged once and not looked at again until something else is put in
        force; a store that cannot be reached is asked again at each look.
        """
        act: int | None = None
        kept: PolicyVersion | None = None
        try:
            act = self._store.last_policy_act()
            if act != self._settled:
                kept = self._store.active_policy()
                self._take_up(kept)
            self._settled, self._unreachable = act, False
        except STORE_UNAVAILABLE as error:
            if not self._unreachable:
                self._refuse(None, f"{type(error).__name__}: the store cannot be reached")
            self._unreachable = True
        except Exception as error:  # the store holds anything; the watch outlives it
            self._settled = act
            self._refuse(kept, str(error) or type(error).__name__)

    def _take_up(self, kept: PolicyVersion | None) -> None:
        before = self._policies.now
        if kept is not None and kept.hash != before.hash:
            self._policies.put(loaded(kept))
            log.info("policy_taken_up", version=kept.version, hash=kept.hash,
                     replaced=before.version, worker=os.getpid())  # fmt: skip

    def _refuse(self, kept: PolicyVersion | None, why: str) -> None:
        stays = f"version {self._policies.now.version} stays"
        version = kept.version if kept else None
        log.error("policy_refused", version=version, reason=why, then=stays)
