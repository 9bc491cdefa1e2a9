"""The pages of the policy: its versions, one of them, the next one, and what puts one in force.

What is done is done by `serving.governance`. Here a version's author never puts it in force, though
the settings may let them do so at the command line: who signs in is known, so the second pair of
eyes costs one click, and whoever works alone still has the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from rules.advice import warnings
from rules.changes import changes
from rules.document import Limit, Rule
from rules.policy import CompiledRule, Policy, PolicyError
from serving import governance
from serving.console import bands
from serving.console.backtests import latest_found, under_way
from serving.console.policy_words import by_lines, pointed, sentence
from serving.console.visit import Page, Visit
from serving.explanation.words import action_name
from serving.facts import WORDS
from serving.governance import ActivationRefused, AlteredPolicyError
from serving.language import Language
from serving.persons import is_same_person
from serving.store.policies import PolicyAct, PolicyVersion
from serving.wire import InvalidRequest, Problem

MOST_NOTE: Final = 500
MOST_BYTES: Final = 1024 * 1024
"""A form with a policy: the text, and once more as a file."""

Facts = Sequence[tuple[str, str]]


# --- the versions ------------------------------------------------------------------------------


def every(visit: Visit) -> Response:
    """Every version, the latest first, and who put what in force."""
    store = visit.desk.store
    versions, acts = store.policy_versions(), store.policy_acts()
    named = {kept.hash: kept.version for kept in versions}
    return visit.page(
        "policies.html.j2", versions=versions[::-1], acts=_told(acts[::-1], named),
        in_force=acts[-1].hash if acts else None, back=governance.ways_back(store)[:1],
    )  # fmt: skip


def _told(acts: Sequence[PolicyAct], named: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"at": act.at, "act": act.act, "actor": act.actor, "note": act.note,
         "version": named[act.hash], "replaced": named.get(act.replaced or "")}
        for act in acts
    ]  # fmt: skip


# --- one version -------------------------------------------------------------------------------


def one(visit: Visit) -> Response:
    """A version: who wrote it, what it does, and its text by lines."""
    store = visit.desk.store
    kept = governance.kept_version(store, visit.params["version"])
    versions, acts = store.policy_versions(), store.policy_acts()
    named = {each.hash: each.version for each in versions}
    policy, problem = _loaded(kept)
    return visit.page(
        "policy.html.j2", kept=kept, policy=policy, problem=problem,
        parts=_parts(policy, visit) if policy else {}, lines=by_lines(kept.text),
        acts=_told([act for act in acts if kept.hash in (act.hash, act.replaced)][::-1], named),
        doubts=pointed(warnings(policy, WORDS), kept.text) if policy else [],
        told=_told_of(visit, kept), **_standing(visit, kept),
    )  # fmt: skip


def _loaded(kept: PolicyVersion) -> tuple[Policy | None, str]:
    """A version as it would decide; None, and why, where this program would not let it."""
    try:
        return governance.loaded(kept), ""
    except (PolicyError, AlteredPolicyError) as error:
        return None, str(error)


def _standing(visit: Visit, kept: PolicyVersion) -> dict[str, Any]:
    """Whether a version is in force, and what somebody may do about it."""
    store = visit.desk.store
    current = store.active_policy()
    is_in_force = current is not None and current.hash == kept.hash
    return {
        "current": current,
        "is_in_force": is_in_force,
        "is_own": is_same_person(kept.author, visit.account.name),
        "can_go_back": kept.hash in {each.hash for each in governance.ways_back(store)},
        "may_act": visit.may("policies") and not is_in_force,
    }


def _told_of(visit: Visit, kept: PolicyVersion) -> str:
    """What was just done, as far as the store says so."""
    say, asked = visit.language.say, visit.query.get("told")
    last = next(reversed(visit.desk.store.policy_acts()), None)
    if asked == "proposed":
        return say("Policy {version} is kept, by {author}. It does not act before somebody else "
                   "has put it in force.", version=kept.version, author=kept.author)  # fmt: skip
    if asked == "known":
        return say("This content was kept before, as policy {version}.", version=kept.version)
    if asked == "in-force" and last is not None and last.hash == kept.hash:
        return say("Policy {version} is in force, by {actor}. What is decided from now on, it "
                   "decides.", version=kept.version, actor=last.actor)  # fmt: skip
    return ""


# --- what it does ------------------------------------------------------------------------------


def _parts(policy: Policy, visit: Visit) -> dict[str, Any]:
    """What stands in a policy, ready to be read."""
    language, currency = visit.language, visit.desk.rates.base
    every: list[Rule | Limit] = [*policy.document.rules, *policy.document.limits]
    written = {each.id: each for each in every}
    return {
        "rules": [_rule(rule, written[rule.id], language) for rule in policy.rules],
        "bands": [bands.in_words(band, currency, language) for band in policy.bands],
        "picture": bands.drawn(policy.bands, currency, language),
        "settings": _settings(policy, currency, language),
    }


def _rule(compiled: CompiledRule, rule: Rule | Limit, language: Language) -> dict[str, Any]:
    hit = compiled.hit
    modes = {"live": language.say("live"), "shadow": language.say("shadow: only logged")}
    stages = {"hard": language.say("hard"), "risk": language.say("risk"),
              "limit": language.say("limit")}  # fmt: skip
    examples = rule.examples if isinstance(rule, Rule) else None
    outcomes = () if examples is None else (
        (language.say("Hit"), examples.hit), (language.say("Miss"), examples.miss),
        (language.say("Unknown"), examples.unknown),
    )  # fmt: skip
    return {
        "id": rule.id, "version": rule.version, "description": hit.description, "when": rule.when,
        "action": action_name(hit.action, language), "mode": modes[hit.mode],
        "is_live": hit.mode == "live", "stage": stages[hit.stage], "reason": hit.reason,
        "unknown": language.say("if it cannot be settled: review") if rule.reviews_unknown else
                   language.say("if it cannot be settled: miss"),
        "examples": [(outcome, [_example(each) for each in given])
                     for outcome, given in outcomes if given],
    }  # fmt: skip


def _example(facts: dict[str, Any]) -> str:
    """Facts of an example as its author wrote them.

    >>> _example({"amount_minor": 5, "claim": None, "is_new": True})
    'amount_minor: 5, claim: null, is_new: true'
    """
    spelled = {True: "true", False: "false", None: "null"}
    return ", ".join(
        f"{name}: {spelled[of] if of is None or isinstance(of, bool) else of}"
        for name, of in facts.items()
    )


def _settings(policy: Policy, currency: str, language: Language) -> Facts:
    """The parts of a policy that are neither bands nor rules, each with what it says."""
    say, costs, exploration = language.say, policy.costs, policy.exploration
    yes, no = say("yes"), say("no")
    found = [
        (say("Without a score"), action_name(policy.fallback, language)),
        (say("Every order is reported"), yes if policy.orders_complete else no),
        (say("Block list counts for"), ", ".join(policy.lists.block) or say("nobody")),
        (say("Allow list counts for"), ", ".join(policy.lists.allow) or say("nobody")),
        (say("Lost beside the amount when abuse is paid"),
         language.money(costs.fee_minor, currency)),
        (say("Cost of a review"), language.money(costs.review_minor, currency)),
        (say("Harm of preventing an honest refund"),
         say("{number} times its amount", number=language.count(costs.prevented_honest_multiple))),
    ]  # fmt: skip
    if costs.reviews_per_day is not None:
        found.append((say("Reviews a day at most"), language.count(costs.reviews_per_day)))
    paid = say("none") if exploration is None else say(
        "{share} of what is held, up to {money}", share=language.share(exploration.share, 1),
        money=language.money(exploration.max_amount_minor, currency),
    )  # fmt: skip
    return [*found, (say("Paid by chance, so that labels can teach"), paid)]


# --- the next version --------------------------------------------------------------------------


def write_next(visit: Visit) -> Response:
    """The form of a new version, which begins with the text of this one."""
    kept = governance.kept_version(visit.desk.store, visit.params["version"])
    return visit.page("policy_next.html.j2", kept=kept, text=kept.text, note="", problems=[],
                      pointed=[], lines=[], most_note=MOST_NOTE)  # fmt: skip


def propose(visit: Visit) -> Response:
    """Keep a new version, or show what is wrong with it at its lines, with all that was typed."""
    store = visit.desk.store
    kept = governance.kept_version(store, visit.params["version"])
    text, note = visit.form.text("text"), visit.form.text("note").strip()
    try:
        upload = visit.form.file("file")
        if upload is not None:
            text = _decoded(upload.content)
        _check_note(note)
        before = len(store.policy_versions())
        made = governance.propose(store, text, author=visit.account.name, note=note or None,
                                  at=visit.at, via=visit.via)  # fmt: skip
    except (InvalidRequest, PolicyError) as error:
        found = pointed(error.problems, text) if isinstance(error, PolicyError) else []
        return visit.page(
            "policy_next.html.j2", status=422, kept=kept, text=text, note=note,
            problems=[] if found else error.problems, pointed=found, lines=by_lines(text),
            most_note=MOST_NOTE,
        )  # fmt: skip
    told = "proposed" if len(store.policy_versions()) > before else "known"
    return visit.to(f"/policies/{made.version}", told=told)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        told = f"must be text in UTF-8, is not at byte {error.start + 1}"
        raise InvalidRequest([Problem("file", told)]) from None


def _check_note(note: str) -> None:
    if len(note) > MOST_NOTE:
        told = f"must be at most {MOST_NOTE} characters"
        raise InvalidRequest([Problem("note", told, len(note))])


# --- in force ----------------------------------------------------------------------------------


def ask_activation(visit: Visit) -> Response:
    """What putting a version in force changes, before it is confirmed."""
    return _asking(visit, "activate")


def ask_way_back(visit: Visit) -> Response:
    """What going back to a version changes, before it is confirmed."""
    return _asking(visit, "roll-back")


def activate(visit: Visit) -> Response:
    """Put a version in force, of which whoever asks is not the author."""
    return _confirmed(visit, "activate")


def roll_back(visit: Visit) -> Response:
    """Put a version in force again that led to the present one."""
    return _confirmed(visit, "roll-back")


def _asking(visit: Visit, act: str, note: str = "", problems: Sequence[Problem] = ()) -> Response:
    store = visit.desk.store
    kept = governance.kept_version(store, visit.params["version"])
    standing = _standing(visit, kept)
    current: PolicyVersion | None = standing["current"]
    policy, problem = _loaded(kept)
    before = _loaded(current)[0] if current else None
    told = None
    if policy and before:
        told = [sentence(change, visit.language) for change in changes(before, policy)]
    against = current.version if current else None
    return visit.page(
        "policy_act.html.j2", status=422 if problems else 200, kept=kept, act=act, changes=told,
        problem=problem, note=note, problems=problems, most_note=MOST_NOTE, **standing,
        found=latest_found(visit, kept.version, against),
        going=under_way(visit.desk.store, kept.version, against),
    )  # fmt: skip


def _confirmed(visit: Visit, act: str) -> Response:
    store, version = visit.desk.store, visit.params["version"]
    note, seen = visit.form.text("note").strip(), visit.form.text("instead_of") or None
    given: dict[str, Any] = {"actor": visit.account.name, "at": visit.at, "note": note or None,
                             "via": visit.via, "instead_of": seen}  # fmt: skip
    try:
        _check_note(note)
        if act == "activate":
            governance.activate(store, version, second_person=True, **given)
        else:
            governance.roll_back(store, to=version, **given)
    except InvalidRequest as error:
        return _asking(visit, act, note, error.problems)
    except (ActivationRefused, PolicyError, AlteredPolicyError) as error:
        told = str(error).removeprefix(f"policy {version}: ")
        return _asking(visit, act, note, [Problem(f"policy {version}", told)])
    return visit.to(f"/policies/{version}", told="in-force")


CALLS: Final = (
    Page("GET", "/policies", "read", every),
    Page("GET", "/policies/{version}", "read", one),
    Page("GET", "/policies/{version}/next", "policies", write_next),
    Page("POST", "/policies/{version}/next", "policies", propose, most_bytes=MOST_BYTES),
    Page("GET", "/policies/{version}/activate", "policies", ask_activation),
    Page("POST", "/policies/{version}/activate", "policies", activate),
    Page("GET", "/policies/{version}/roll-back", "policies", ask_way_back),
    Page("POST", "/policies/{version}/roll-back", "policies", roll_back),
)
