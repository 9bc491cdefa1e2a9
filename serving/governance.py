"""Who may put a policy in force: versions are proposed, activated and gone back to, never changed.

`propose`, `activate` and `roll_back` are the only ways to change what decides. The API and the
command line go through them, and each leaves an audit entry in its transaction; what was refused
to come in force leaves one too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

import structlog

from rules.checks import document_of
from rules.condition import nearest
from rules.policy import Policy, PolicyError
from rules.succession import Misstep, Outline, missteps, placed
from serving import announcements
from serving.facts import FACTS
from serving.persons import is_same_person, name_of_person
from serving.store.database import StoreRefusedError
from serving.store.policies import ActName, PolicyAct, PolicyVersion
from serving.store.store import Store
from serving.wire import shown

log = structlog.get_logger()

FIRST_AUTHOR: Final = "recourse"
"""Who proposes and activates the policy that a new store starts with."""


class AlteredPolicyError(StoreRefusedError):
    """A stored policy is not what was kept under its hash."""


class ActivationRefused(Exception):  # noqa: N818 - it is what happened, as the API answers it
    """A policy may not be put in force so; the message says why and what would be right."""


class UnknownPolicyError(LookupError):
    """The store keeps no such policy, or none that could be meant; the message is its argument."""


class SuccessionError(PolicyError):
    """A policy that is sound, and does not follow what decided before it."""


class SecondPersonNeeded(ActivationRefused):
    """The settings ask for a second person, and the author asked alone."""


class NobodyNamed(ActivationRefused):
    """The settings ask for a second person, and nobody can tell who asks."""


@functools.lru_cache(maxsize=16)
def _read(text: str) -> Policy:
    """A policy over the facts of this program; each text is read once, which takes a while."""
    return Policy.from_yaml(text, facts=FACTS)


def loaded(kept: PolicyVersion, facts: Mapping[str, str] = FACTS) -> Policy:
    """A stored policy, ready to decide, if it is what was kept.

    Raises:
        PolicyError: it cannot be loaded, with every problem.
        AlteredPolicyError: its content is not that of its hash.
    """
    policy = _read(kept.text) if facts is FACTS else Policy.from_yaml(kept.text, facts=facts)
    if (policy.hash, policy.version) != (kept.hash, kept.version):
        raise AlteredPolicyError(
            f"policy {kept.version}: its text is version {policy.version} of hash {policy.hash}, "
            f"expected hash {kept.hash}, under which it was kept: it was altered in the store"
        )
    return policy


def propose(
    store: Store, text: str, *, author: str, note: str | None, at: int, via: str | None = None
) -> PolicyVersion:
    """Keep a policy as a new version; it does not act before it is activated.

    The same content again is the version that is there, with its first author. ``via`` is how the
    audit log names who asked, where that is more than the person: an API key, a login.

    Raises:
        NameRefused: ``author`` is nobody's name.
        PolicyError: with every problem: of the document and its examples; then of what it follows
            (a rule that changed though its version did not rise, a version that is taken).
    """
    author = name_of_person(author)
    policy = _read(text)
    kept = store.policy_by_hash(policy.hash)
    if kept is not None:
        return kept
    check_succession(store, policy)
    note = note or policy.note
    with store.write() as tx:
        kept = tx.add_policy(version=policy.version, hash=policy.hash, text=text, author=author,
                             note=note, at=at)  # fmt: skip
        tx.audit(via or author, "proposed", _subject(kept), {"hash": policy.hash}, at=at,
                 personal={"by": author, "note": note})  # fmt: skip
    return kept


def activate(
    store: Store,
    version: str,
    *,
    actor: str,
    at: int,
    second_person: bool,
    note: str | None = None,
    via: str | None = None,
    instead_of: str | None = None,
) -> PolicyAct:
    """Put a version in force; workers take it up within a second or two.

    ``instead_of`` is the hash of what whoever asks saw in force, where that is to hold still.

    Raises:
        NameRefused: ``actor`` is nobody's name.
        UnknownPolicyError: the store has no such version; names the nearest.
        SecondPersonNeeded: ``second_person``, and ``actor`` is the version's author.
        ActivationRefused: it is in force already, or another came in between.
        PolicyError: it cannot be loaded, or does not follow what decided before it.
        AlteredPolicyError: its text is not what was kept.
    """
    actor = name_of_person(actor)
    with _refusals_audited(store, version, "activated", actor, at, via):
        kept = kept_version(store, version)
        policy = loaded(kept)
        current = store.active_policy()
        if current is not None and current.hash == kept.hash:
            raise ActivationRefused(f"policy {version}: is in force already")
        if current is not None and instead_of not in (None, current.hash):
            raise _meanwhile(version)
        if second_person and is_same_person(actor, kept.author):
            raise SecondPersonNeeded(
                f"policy {version}: {kept.author} wrote it, so somebody else must put it in force "
                "(RECOURSE_POLICY_SECOND_PERSON); going back to what it replaced needs one person "
                "only: recourse policy rollback"
            )
        if all(act.hash != kept.hash for act in store.policy_acts()):
            check_succession(store, policy)
        return _put_in_force(store, kept, current, "activated", actor, at, note, via)


def roll_back(
    store: Store,
    *,
    actor: str,
    at: int,
    to: str | None = None,
    note: str | None = None,
    via: str | None = None,
    instead_of: str | None = None,
) -> PolicyAct:
    """Put a version that led to the present one in force again: ``to``, or the last of them.

    Rolling back twice goes back twice. It needs one person, whatever the settings say: so it goes
    backwards only, and brings nothing back that was itself gone back from. ``instead_of`` is as
    `activate` has it.

    Raises:
        NameRefused: ``actor`` is nobody's name.
        UnknownPolicyError: no such version, or it never was in force.
        ActivationRefused: ``to`` is in force already, was withdrawn, or another came in between.
        PolicyError, AlteredPolicyError: as in `activate`.
    """
    actor = name_of_person(actor)
    current, acts = store.active_policy(), store.policy_acts()
    way = _way(acts)
    if to is None:
        if len(way) < 2:
            raise UnknownPolicyError(_nothing_before(store, acts))
        before = store.policy_by_hash(way[-2])
        to = before.version if before else way[-2]
    with _refusals_audited(store, to, "rolled_back", actor, at, via):
        kept = kept_version(store, to)
        if all(act.hash != kept.hash for act in acts):
            raise UnknownPolicyError(f"policy {to}: was never in force; activate it instead")
        if current is not None and current.hash == kept.hash:
            raise ActivationRefused(f"policy {to}: is in force already")
        if current is not None and instead_of not in (None, current.hash):
            raise _meanwhile(to)
        if kept.hash not in way:
            raise ActivationRefused(
                f"policy {to}: was withdrawn when an earlier version came in force again; activate "
                "it instead"
            )
        loaded(kept)
        return _put_in_force(store, kept, current, "rolled_back", actor, at, note, via)


def ways_back(store: Store) -> list[PolicyVersion]:
    """What `roll_back` can put in force again, the last that was in force first."""
    before = reversed(_way(store.policy_acts())[:-1])
    return [kept for number in before if (kept := store.policy_by_hash(number)) is not None]


def ensure_first(store: Store, text: str, at: int) -> PolicyVersion:
    """The version in force; a store that has none gets ``text``, proposed and activated by us.

    Raises PolicyError with every problem of ``text``. Several workers may start at once.
    """
    kept = store.active_policy()
    if kept is not None:
        return kept
    kept = propose(store, text, author=FIRST_AUTHOR, note=None, at=at)
    try:
        _put_in_force(store, kept, None, "activated", FIRST_AUTHOR, at, None, None)
    except ActivationRefused:  # another worker was first
        kept = store.active_policy() or kept
    return kept


def refuse_unnamed(store: Store, version: str | None, *, key_id: str, at: int) -> NoReturn:
    """Refuse a key that has no name, where a second person is asked for.

    ``version`` is what it would have put in force, None for a proposal. Raises `NobodyNamed`.
    """
    refused = NobodyNamed(
        "Authorization: this key bears no name, and who writes a policy and who puts it in force "
        "must be two people (RECOURSE_POLICY_SECOND_PERSON); ask with a key that was made with "
        "recourse keys create --name"
    )
    if version is None:
        raise refused
    with _refusals_audited(store, version, "activated", key_id, at, f"key:{key_id}"):
        raise refused


def person_of(name: str | None, key_id: str) -> str:
    """Who holds an API key: the name it was made for, else the key itself.

    >>> person_of(None, "key_1"), person_of("Ann", "key_1")
    ('key_1', 'Ann')
    """
    return name or key_id


def _put_in_force(
    store: Store, kept: PolicyVersion, current: PolicyVersion | None,
    act: ActName, actor: str, at: int, note: str | None, via: str | None,
) -> PolicyAct:  # fmt: skip
    expected = current.hash if current else None
    with store.write() as tx:
        done = tx.activate_policy(kept.hash, actor=actor, at=at, act=act, note=note)
        if done.replaced != expected:  # what was checked is not what would be replaced
            raise _meanwhile(kept.version)
        content = {"hash": kept.hash, "replaced": done.replaced}
        tx.audit(via or actor, act, _subject(kept), content, at=at,
                 personal={"by": actor, "note": note})  # fmt: skip
        replaced = current.version if current else None
        told = announcements.policy_activated(kept.version, kept.hash, replaced, act)
        tx.announce("policy.activated", told, at)
    return done


@contextmanager
def _refusals_audited(
    store: Store, version: str, act: ActName, actor: str, at: int, via: str | None
) -> Iterator[None]:
    """Leave an audit entry where a policy is refused to come in force."""
    try:
        yield
    except (ActivationRefused, UnknownPolicyError, PolicyError, AlteredPolicyError) as error:
        content = {"act": act, "refused": type(error).__name__}
        subject = f"policy:{shown(version.replace(chr(0), '?'))}"
        with store.write() as tx:
            tx.audit(via or actor, "activation_refused", subject, content, at=at,
                     personal={"by": actor})  # fmt: skip
        raise


def _meanwhile(version: str) -> ActivationRefused:
    return ActivationRefused(
        f"policy {version}: another policy was put in force meanwhile; see which, and ask again"
    )


def _subject(kept: PolicyVersion) -> str:
    return f"policy:{kept.version}"


def kept_version(store: Store, version: str) -> PolicyVersion:
    """A version that the store keeps; raises UnknownPolicyError, naming the nearest."""
    kept = None if "\0" in version else store.policy(version)  # PostgreSQL's texts hold none
    return kept if kept is not None else _unknown(store, version)


def _unknown(store: Store, version: str) -> NoReturn:
    versions = [kept.version for kept in store.policy_versions()]
    near = nearest(version, versions)
    hint = f"; did you mean {near}?" if near else ""
    expected = ", ".join(versions[-5:]) or "none is kept yet"
    raise UnknownPolicyError(f"policy {version}: no such version, expected one of {expected}{hint}")


def _nothing_before(store: Store, acts: Sequence[PolicyAct]) -> str:
    """Why there is nothing to go back to, and what to do where something was in force before."""
    last = acts[-1] if acts else None
    replaced = store.policy_by_hash(last.replaced) if last and last.replaced else None
    if replaced is None:
        return "no policy was in force before the present one"
    return (
        f"the present policy is the first there was; policy {replaced.version} was withdrawn when "
        "it came in force again: activate it instead"
    )


def _way(acts: Iterable[PolicyAct]) -> list[str]:
    """The hashes of what led to the present policy, the first first and the present one last.

    What comes in force again, by going back or by an activation, undoes all that came after it.
    """
    way: list[str] = []
    for act in acts:
        if act.hash in way:
            del way[way.index(act.hash) + 1 :]
        else:
            way.append(act.hash)
    return way


def check_succession(store: Store, policy: Policy) -> None:
    """Refuse a policy that gives a name that was used to something else; raises SuccessionError.

    Against the policy in force everything is compared. What decided earlier may have been gone
    back from, so of it only this is asked: that one version of a rule is one content, for ever.
    """
    current = store.active_policy()
    steps: list[Misstep] = []
    if (taken := store.policy(policy.version)) is not None:
        steps += (step for step in _missteps(taken, policy) if step.path == ("version",))
    for number in dict.fromkeys(act.hash for act in reversed(store.policy_acts())):
        if (kept := store.policy_by_hash(number)) is not None:
            is_current = current is not None and current.hash == number
            steps += (step for step in _missteps(kept, policy)
                      if is_current or (step.is_reuse and step.path != ("version",)))  # fmt: skip
    if steps:
        raise SuccessionError(placed(steps, policy.text))


def _missteps(kept: PolicyVersion, policy: Policy) -> Iterator[Misstep]:
    outline = _outline(kept.text)
    if outline is not None and outline.hash != kept.hash:
        # It is refused wherever it would decide; that another may follow it is the way out.
        log.error("policy_altered", version=kept.version, hash=outline.hash, expected=kept.hash)
        outline = None
    return iter(()) if outline is None else missteps(outline, policy)


@functools.lru_cache(maxsize=256)
def _outline(text: str) -> Outline | None:
    """What a kept policy's successors are held to; None if this program cannot read it any more."""
    try:
        return Outline.of(document_of(text))
    except PolicyError:
        return None
