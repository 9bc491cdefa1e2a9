"""What a decision answered, and what settled it, told from its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rules.decision import Source
from rules.document import Band
from rules.policy import Policy
from serving.explanation.parts import Verdict
from serving.explanation.words import action_name, entity_name, missing
from serving.language import Language
from serving.store.decisions import Decision
from serving.store.indexing import StoredEvent


def verdict_of(
    decision: Decision, request: StoredEvent | None, policy: Policy | None,
    base_rate: float | None, language: Language,
) -> Verdict:  # fmt: skip
    """The verdict of a stored decision; ``policy`` is the one that decided, if it is there still.

    ``request`` is the event that was decided, ``base_rate`` the probability of the model's average
    score.
    """
    record, answered = decision.record, decision.response["data"]
    made, said = record["decision"], request.payload if request else {}
    facts = record.get("facts") or {}
    follow_up = made["follow_up"]
    return Verdict(
        score_id=decision.score_id,
        refund_id=decision.refund_id,
        order_id=said.get("order_id"),
        customer=record["keys"]["customer"],
        decided_at=decision.decided_at,
        action=made["action"],
        source=made["source"],
        decided_by=tuple(_settled_by(record, policy, language)),
        asked_minor=int(facts.get("asked_minor", said.get("amount_minor", 0))),
        currency=facts.get("currency", said.get("currency", record["base_currency"])),
        payable_minor=(record.get("features") or {}).get("payable_minor"),
        base_currency=record["base_currency"],
        probability=record["probability"],
        base_rate=base_rate,
        risk_level=answered.get("riskLevel"),
        expected_loss_minor=record["expected_loss_minor"],
        band=made["band"],
        degraded=made["degraded"],
        explored=made["explored"],
        follow_up=follow_up["code"] if follow_up else None,
        problem=record["problem"],
    )


def _settled_by(
    record: Mapping[str, Any], policy: Policy | None, language: Language
) -> Iterator[str]:
    """What settled the answer, the weightiest first."""
    made = record["decision"]
    action, source, say = made["action"], Source(made["source"]), language.say
    if record["sandbox"]:
        yield say("The sandbox was asked for this answer, by the name of an e-mail address.")
        return
    match source:
        case Source.RULE | Source.RATE_LIMIT:
            yield from _by_rules(made, language)
        case Source.MANUAL_REVIEW:
            yield say("A person had decided this refund before.")
        case Source.LIST:
            yield from _by_lists(record["lists"], action, language)
        case Source.FALLBACK:
            yield say(
                "There was no score, so the policy's fallback answered: {action}.",
                action=action_name(action, language),
            )
        case Source.MODEL:
            yield _by_model(record, policy, language)
    if made["explored"]:
        yield say(
            "The policy would have held it. It was paid all the same, as one of the random share "
            "that is paid to learn from."
        )
    if made["degraded"] and record["problem"] and source is not Source.FALLBACK:
        yield say("There was no score: {problem}.", problem=record["problem"].partition(":")[0])


def _by_rules(made: Mapping[str, Any], language: Language) -> Iterator[str]:
    """The live rules that called for what was answered."""
    for rule in (*made["hits"], *made["unknowns"]):
        if rule["mode"] != "live" or rule["calls_for"] != made["action"]:
            continue
        named = {"rule": rule["rule_id"], "version": rule["version"], "says": rule["description"]}
        if rule["outcome"] == "unknown":
            yield language.say(
                "Rule {rule} (version {version}) could not be settled ({facts}): {says}",
                **named, facts="; ".join(missing(f, language) for f in rule["unknown_facts"]),
            )  # fmt: skip
        elif rule["stage"] == "limit":
            yield language.say("Limit {rule} (version {version}): {says}", **named)
        else:
            yield language.say("Rule {rule} (version {version}): {says}", **named)


def _by_lists(
    lists: Mapping[str, list[tuple[str, str]]], action: str, language: Language
) -> Iterator[str]:
    is_allowed = action == "ALLOW"
    for entity, reason in lists["allow" if is_allowed else "block"]:
        named = {"entity": entity_name(entity, language), "reason": reason}
        if is_allowed:
            yield language.say("The {entity} is on the list of the allowed: {reason}", **named)
        else:
            yield language.say("The {entity} is on the list of the blocked: {reason}", **named)


def _by_model(record: Mapping[str, Any], policy: Policy | None, language: Language) -> str:
    """Which band the score reached."""
    action, made = record["decision"]["action"], record["decision"]
    probability, loss = record["probability"], record["expected_loss_minor"]
    currency, say = record["base_currency"], language.say
    told = {
        "probability": language.probability(probability),
        "loss": language.money(loss, currency),
        "action": action_name(action, language),
    }
    if made["explored"]:
        return say("The probability of abuse is {probability}, the expected loss {loss}.", **told)
    if made["band"] == "ALLOW":
        return say(
            "The probability of abuse is {probability}, the expected loss {loss}: none of the "
            "policy's bands is reached, and no rule calls for more.", **told,
        )  # fmt: skip
    band = _reached(policy.bands, action, probability, loss) if policy else None
    if band is None:
        return say(
            "The probability of abuse is {probability}, the expected loss {loss}: that is in the "
            "policy's band for {action}.", **told,
        )  # fmt: skip
    edges = language.listed([*_edges(band, currency, language)])
    return say(
        "The probability of abuse is {probability}, the expected loss {loss}: that is in the "
        "policy's band for {action}, which begins at {edges}.", **told, edges=edges,
    )  # fmt: skip


def _reached(
    bands: tuple[Band, ...], action: str, probability: float, loss: float | None
) -> Band | None:
    """The first band for an action that a score reaches; an unknown loss reaches any."""
    for band in bands:
        least = band.expected_loss_minor_at_least
        is_enough = least is None or loss is None or loss >= least
        if probability >= (band.probability_at_least or 0) and is_enough and band.action == action:
            return band
    return None


def _edges(band: Band, currency: str, language: Language) -> Iterator[str]:
    if band.probability_at_least is not None:
        yield language.say(
            "a probability of {share}", share=language.share(band.probability_at_least)
        )
    if band.expected_loss_minor_at_least is not None:
        yield language.say(
            "an expected loss of {amount}",
            amount=language.money(band.expected_loss_minor_at_least, currency),
        )
