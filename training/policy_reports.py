"""The reports on a policy, taken over a store or a data folder: shadow rules, quality, exploration.

Of each refund the policy's last decision before its money moved counts, as in a backtest
(`training.backtest.labelled`), with the label that is known at the end of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson

from features.money import Rates
from features.tables import Tables
from rules.condition import nearest
from rules.decision import Mode
from rules.document import Costs
from rules.policy import Policy, PolicyError
from serving.facts import FACTS
from serving.governance import AlteredPolicyError, loaded
from serving.scorer import Champion
from serving.store.store import Store
from training.backtest import folder_requests, labelled
from training.exploration import ExplorationReport, exploration_report
from training.labels import DEFAULT_MATURITY_DAYS, paid_at
from training.policy_judgement import Maturity
from training.policy_log import Logging
from training.quality_report import QualityReport, quality_report
from training.shadow_report import ShadowReport, shadow_logging, shadow_report
from training.store_labels import end_of_store, label_tables

Progress = Callable[[int, int], None]


def policies_of(store: Store) -> dict[str, Policy]:
    """Every policy the store keeps, by hash, the oldest first.

    One that cannot be loaded any more, or whose text was altered, is left out: what it decided
    cannot be decided again.
    """
    found = {}
    for kept in store.policy_versions():
        try:
            found[kept.hash] = loaded(kept, FACTS)
        except (PolicyError, AlteredPolicyError):
            continue
    return found


def store_shadow_report(
    store: Store,
    *,
    rule_id: str | None = None,
    costs: Costs | None = None,
    since: int | None = None,
    until: int | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
) -> ShadowReport:
    """What shadow rules would have changed in decisions of ``since <= decided_at < until`` (ms).

    Money is counted by ``costs``, those of the policy in force when not given. Raises LookupError
    where the store holds no decision, keeps no policy, or none of them has the rule in the shadow.
    """
    policies = policies_of(store)
    if rule_id is not None:
        _check_shadow(rule_id, policies.values())
    reads = {name for policy in policies.values() for name in policy.reads}
    reads |= shadow_logging(policies, rule_id).reads
    maturity = Maturity(end_of_store(store), maturity_days)
    return shadow_report(
        policies,
        labelled(store, reads=reads, since=since, until=until, maturity_days=maturity_days),
        costs=costs or _costs(store, policies),
        currency=_currency(store),
        maturity=maturity,
        rule_id=rule_id,
    )


def store_quality_report(
    store: Store,
    policy: Policy,
    *,
    since: int | None = None,
    until: int | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
) -> QualityReport:
    """How good a policy's rules are over the decisions of a store, whoever made them.

    Raises LookupError where the store holds no decision.
    """
    maturity = Maturity(end_of_store(store), maturity_days)
    reads = {*policy.reads, *Logging.of(policy).reads}
    rows = labelled(store, reads=reads, since=since, until=until, maturity_days=maturity_days)
    return quality_report(policy, rows, currency=_currency(store), maturity=maturity)


def folder_quality_report(
    tables: Tables,
    champion: Champion | None,
    policy: Policy,
    rates: Rates,
    *,
    as_of: int,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
    progress: Progress = lambda done, total: None,
) -> QualityReport:
    """How good a policy's rules are over the refunds of canonical tables.

    ``as_of`` (epoch ms) is when labels are known; ``progress`` hears how many requests are done.
    """
    rows = folder_requests(tables, champion, policy, rates, as_of, maturity_days, progress)
    maturity = Maturity(as_of, maturity_days)
    return quality_report(policy, rows, currency=rates.base, maturity=maturity)


def store_exploration_report(
    store: Store,
    *,
    costs: Costs | None = None,
    since: int | None = None,
    until: int | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
) -> ExplorationReport:
    """What exploration cost and taught in decisions of ``since <= decided_at < until`` (ms).

    Costs and errors as in `store_shadow_report`.
    """
    policies = policies_of(store)
    as_of = end_of_store(store)
    paid = set(paid_at(label_tables(store, as_of), as_of).index)
    reads = {name for policy in policies.values() for name in policy.reads}
    return exploration_report(
        policies,
        labelled(store, reads=reads, since=since, until=until, maturity_days=maturity_days),
        costs=costs or _costs(store, policies),
        currency=_currency(store),
        maturity=Maturity(as_of, maturity_days),
        is_paid=paid.__contains__,
    )


def _costs(store: Store, policies: dict[str, Policy]) -> Costs:
    """The costs of the policy in force, else of the last one kept."""
    active = store.active_policy()
    if active is not None and active.hash in policies:
        return policies[active.hash].costs
    if not policies:
        raise LookupError("the store keeps no policy that can be loaded: expected one")
    return [*policies.values()][-1].costs


def _currency(store: Store) -> str:
    first = next(iter(store.raw_decisions()), None)
    if first is None:
        raise LookupError("the store holds no decision: expected some")
    return str(orjson.loads(first.record)["base_currency"])


def _check_shadow(rule_id: str, policies: Iterable[Policy]) -> None:
    rules = [rule.miss for policy in policies for rule in policy.rules]
    if any(rule.rule_id == rule_id and rule.mode is Mode.SHADOW for rule in rules):
        return
    if any(rule.rule_id == rule_id for rule in rules):
        raise LookupError(f"{rule_id}: it was never in the shadow; `recourse policy quality` "
                          "judges live rules")  # fmt: skip
    near = nearest(rule_id, sorted({rule.rule_id for rule in rules}))
    hint = f"; did you mean {near}?" if near else ""
    raise LookupError(f"{rule_id}: no policy of the store has such a rule or limit{hint}")
