"""The pages of a comparison: what a policy says otherwise than another, and what that comes to.

A backtest takes longer than a page may, so one asks for it and looks again (`serving.jobs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from starlette.responses import Response

from rules.changes import changes
from rules.policy import PolicyError
from serving import governance, jobs
from serving.console.policy_words import rows, sentence
from serving.console.visit import Page, Visit
from serving.envelope import ApiError
from serving.explanation.words import action_name
from serving.governance import AlteredPolicyError
from serving.language import Language
from serving.store.jobs import Job
from serving.store.policies import PolicyVersion
from serving.store.store import Store
from serving.wire import InvalidRequest, Problem, shown

PERIODS: Final[Mapping[str, int | None]] = {"30": 30, "90": 90, "365": 365, "all": None}
"""The last so many days that a backtest may be about."""

LOOK_SECONDS: Final = 3
"""How often a page looks again for a backtest that is under way."""

JOB_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
)
"""Of a page that a job left: its own styles, of which each bar has one, and nothing else at all."""


# --- what it says otherwise --------------------------------------------------------------------


def compare(visit: Visit) -> Response:
    """What a version says otherwise than another: its meaning first, then its text."""
    kept, against = _pair(visit)
    told, problem = None, ""
    if against is not None:
        try:
            before, after = governance.loaded(against), governance.loaded(kept)
            told = [sentence(change, visit.language) for change in changes(before, after)]
        except (PolicyError, AlteredPolicyError) as error:
            problem = str(error)
    version = against.version if against else None
    return visit.page(
        "policy_diff.html.j2", changes=told, problem=problem,
        found=latest_found(visit, kept.version, version),
        going=under_way(visit.desk.store, kept.version, version),
        rows=rows(against.text, kept.text) if against else [], **_sides(visit, kept, against),
    )  # fmt: skip


def _pair(visit: Visit) -> tuple[PolicyVersion, PolicyVersion | None]:
    """The version that is asked about, and which one it is held against.

    Where nothing is said that is the one in force, and for that the one it replaced. Raises
    UnknownPolicyError for what is no version.
    """
    store = visit.desk.store
    kept = governance.kept_version(store, visit.params["version"])
    if named := visit.query.get("against") or visit.form.text("against"):
        return kept, governance.kept_version(store, named)
    current = store.active_policy()
    if current is None or current.hash != kept.hash:
        return kept, current
    last = store.policy_acts()[-1]
    return kept, store.policy_by_hash(last.replaced) if last.replaced else None


def _sides(visit: Visit, kept: PolicyVersion, against: PolicyVersion | None) -> dict[str, Any]:
    store = visit.desk.store
    current = store.active_policy()
    others = [each for each in store.policy_versions()[::-1] if each.hash != kept.hash]
    return {
        "kept": kept, "against": against, "in_force": current.hash if current else None,
        "others": [(each.version, each.version) for each in others],
    }  # fmt: skip


# --- what that comes to ------------------------------------------------------------------------


def latest_found(visit: Visit, version: str, against: str | None) -> dict[str, Any] | None:
    """The last backtest of a version against another, with what it found; None where none is."""
    store = visit.desk.store
    for job in _backtests(store, version):
        if job.state == "done" and job.arguments["against"] == against:
            return {"job": job, **told_of(jobs.document(store, job), visit.language)}
    return None


def under_way(store: Store, version: str, against: str | None) -> Job | None:
    """The backtest of a version against another that is asked for and not done; None for none."""
    return next((job for job in _backtests(store, version)
                 if job.done_at is None and job.arguments["against"] == against), None)  # fmt: skip


def backtest(visit: Visit) -> Response:
    """What a version would have decided otherwise: asked for, under way, and what came of it."""
    return _backtest(visit)


def ask(visit: Visit) -> Response:
    """Ask for a backtest."""
    kept, against = _pair(visit)
    try:
        job = _asked(visit, kept, against, visit.form.text("days"))
    except InvalidRequest as error:
        return _backtest(visit, error.problems)
    return visit.to(f"/policies/{kept.version}/backtest", job=job.id)


def _asked(visit: Visit, kept: PolicyVersion, against: PolicyVersion | None, days: str) -> Job:
    problems = []
    if days not in PERIODS:
        told = f"must be one of {', '.join(PERIODS)}"
        problems.append(Problem("days", told, shown(days)))
    if against is None or against.hash == kept.hash:
        problems.append(Problem("against", "must be another version", kept.version))
    if problems or against is None:
        raise InvalidRequest(problems)
    store = visit.desk.store
    since = jobs.first_instant(store, PERIODS[days], visit.at)
    given = {"policy": kept.version, "against": against.version, "since": since}
    return jobs.ask(store, "backtest", given, by=visit.account.name, at=visit.at, via=visit.via)


def _backtest(visit: Visit, problems: tuple[Problem, ...] = ()) -> Response:
    kept, against = _pair(visit)
    store = visit.desk.store
    history = _backtests(store, kept.version)
    job = _chosen(visit, history, against)
    found = jobs.document(store, job) if job and job.state == "done" else None
    is_going_on = job is not None and job.done_at is None
    looks_again = is_going_on and not problems and "still" not in visit.query
    mode: jobs.Mode = "test" if visit.store_name == "sandbox" else "live"
    page = visit.page(
        "policy_backtest.html.j2", status=422 if problems else 200, job=job, history=history,
        told=told_of(found, visit.language) if found else None, problems=problems,
        days=visit.form.text("days") or "90", looks_again=looks_again, seconds=LOOK_SECONDS,
        is_going_on=is_going_on, waited_days=(visit.at - job.asked_at) / 86_400_000 if job else 0,
        why=jobs.problem_of(job, mode, visit.language) if job else "",
        **_sides(visit, kept, against),
    )  # fmt: skip
    if looks_again:  # a browser does that by itself; the page has a link that stops it
        page.headers["Refresh"] = str(LOOK_SECONDS)
    return page


def _backtests(store: Store, version: str) -> list[Job]:
    return [job for job in jobs.history(store, "backtest") if job.arguments["policy"] == version]


def _chosen(visit: Visit, history: list[Job], against: PolicyVersion | None) -> Job | None:
    """The backtest that is asked for by its id, else the latest against the same version."""
    if id := visit.query.get("job"):
        found = next((job for job in history if job.id == id), None)
        if found is None:
            raise ApiError(404, f"job: no such backtest is kept (any more), got {shown(id)}")
        return found
    version = against.version if against else None
    return next((job for job in history if job.arguments["against"] == version), None)


def told_of(document: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """What a backtest found, in short: money, decisions, and what moves them."""
    currency, figures = document["currency"], document["figures"]
    moves, workload = document["moves"], document["workload"]
    stopped, honest = figures["abuse_stopped"]["minor"], figures["honest_prevented"]["count"]
    say, money, count = language.say, language.money, language.count
    share = moves["moved"] / (document["requests"] or 1)
    return {
        "tone": _tone(moves["saved_interval"]),
        "worth": worth(moves, currency, language),
        "basis": say(
            "{refunds} refunds of {first} to {last}, {labelled} of them with a label that is "
            "mature, {abuse} of those abuse. Money counts where a label tells what a refund was, "
            "and for every review.",
            refunds=count(document["requests"]), first=language.day(document["first_at"]),
            last=language.day(document["last_at"]), labelled=count(document["labelled"]),
            abuse=count(document["abuse"])),
        "tiles": [
            (say("Decided otherwise"), count(moves["moved"]),
             say("{share} of {refunds}, worth {money}", share=language.share(share, 1),
                 refunds=count(document["requests"]),
                 money=money(moves["payable_minor"], currency))),
            (say("Abuse stopped"), money(stopped["after"], currency),
             say("instead of {before}", before=money(stopped["before"], currency))),
            (say("Honest refunds prevented"), count(honest["after"]),
             say("instead of {before}", before=count(honest["before"]))),
            (say("Reviews a day"), count(workload["after"]["per_day"]),
             say("instead of {before}", before=count(workload["before"]["per_day"]))),
        ],
        "kinds": list(_kinds(moves, language)),
        "causes": [_cause(each, currency, language) for each in document["causes"]],
    }  # fmt: skip


def worth(moves: Mapping[str, Any], currency: str, language: Language) -> str:
    """What it is worth that refunds move, in a sentence.

    >>> from serving.language import ENGLISH
    >>> worth({"saved_minor": 500.0, "saved_interval": {"low": 1.0, "high": 900.0}}, "GBP", ENGLISH)
    'Cheaper by 5.00 GBP (0.01 GBP to 9.00 GBP).'
    >>> worth({"saved_minor": -500.0, "saved_interval": {"low": -9.0, "high": 0.0}}, "GBP", ENGLISH)
    'Dearer by up to 0.09 GBP, or by nothing at all.'
    """
    low, high = moves["saved_interval"]["low"], moves["saved_interval"]["high"]
    if low is None or high is None:
        return language.say("Whether it is cheaper or dearer is not known.")
    if low == high == 0:
        return language.say("Neither cheaper nor dearer.")
    saved, least, most = (language.money(abs(of), currency)
                          for of in (moves["saved_minor"], low, high))  # fmt: skip
    if low > 0:
        return language.say("Cheaper by {saved} ({least} to {most}).", saved=saved, least=least,
                            most=most)  # fmt: skip
    if high < 0:
        return language.say("Dearer by {saved} ({least} to {most}).", saved=saved, least=most,
                            most=least)  # fmt: skip
    if high == 0:
        return language.say("Dearer by up to {most}, or by nothing at all.", most=least)
    if low == 0:
        return language.say("Cheaper by up to {most}, or by nothing at all.", most=most)
    return language.say("Somewhere between dearer by {dearer} and cheaper by {cheaper}: not told "
                        "apart from chance.", dearer=least, cheaper=most)  # fmt: skip


def _tone(saved: Mapping[str, float | None]) -> str:
    low, high = saved["low"], saved["high"]
    if low is None or high is None:
        return "wait"
    return "good" if low > 0 else "bad" if high < 0 else "wait"


def _kinds(moves: Mapping[str, Any], language: Language) -> Iterator[tuple[str, str, str]]:
    """The kinds of change that occur: from, to, and how many refunds."""
    for before, row in moves["shifts"].items():
        for after, number in row.items():
            if before != after and number:
                yield (action_name(before, language), action_name(after, language),
                       language.count(number))  # fmt: skip


def _cause(cause: Mapping[str, Any], currency: str, language: Language) -> dict[str, Any]:
    names = {
        "rule": language.say("rule {id}", id=cause["id"]),
        "limit": language.say("limit {id}", id=cause["id"]),
        "band": language.say("the band for {action}", action=action_name(cause["id"], language)),
        "fallback": language.say("the fallback"),
        "list": language.say("the {list} list", list=cause["id"]),
    }
    return {
        "name": names.get(cause["kind"], cause["kind"]),
        "kinds": [f"{a} → {b}: {n}" for a, b, n in _kinds(cause, language)],
        "moved": language.count(cause["moved"]), "alone": language.count(cause["alone"]),
        "abuse": language.count(cause["abuse"]["count"]),
        "honest": language.count(cause["honest"]["count"]),
        "worth": language.money(cause["saved_minor"], currency),
    }  # fmt: skip


# --- what a job left ---------------------------------------------------------------------------


def left(visit: Visit) -> Response:
    """The page that a job left, whole."""
    store, id = visit.desk.store, visit.params["id"]
    job = jobs.get(store, id)
    page = jobs.page(store, job) if job else None
    if page is None:
        raise ApiError(404, f"job: no such job is kept (any more), or it left no page: {shown(id)}")
    return Response(page, headers={"Content-Security-Policy": JOB_POLICY}, media_type="text/html")


CALLS: Final = (
    Page("GET", "/policies/{version}/diff", "read", compare),
    Page("GET", "/policies/{version}/backtest", "read", backtest),
    Page("POST", "/policies/{version}/backtest", "policies", ask),
    Page("GET", "/job/{id}", "read", left),
)
