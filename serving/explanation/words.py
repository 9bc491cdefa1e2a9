"""Names of actions, sources and the like in the language of the reader."""

from __future__ import annotations

from features.catalog import BY_NAME
from serving.facts import MEANING
from serving.language import Language


def action_name(action: str, language: Language) -> str:
    """An action as a reader calls it; a word that is none as it stands.

    >>> from serving.language import ENGLISH
    >>> action_name("MANUAL_REVIEW", ENGLISH), action_name("PREVENT", ENGLISH)
    ('Manual review', 'Prevent')
    """
    names = {
        "ALLOW": language.say("Allow"),
        "PREVENT": language.say("Prevent"),
        "MANUAL_REVIEW": language.say("Manual review"),
        "REVIEW": language.say("Review"),
    }
    return names.get(action, action)


def source_name(source: str, language: Language) -> str:
    """What made a decision, as a reader calls it.

    >>> from serving.language import ENGLISH
    >>> source_name("RATE_LIMIT", ENGLISH), source_name("MODEL", ENGLISH)
    ('a limit', 'the model')
    """
    names = {
        "RULE": language.say("a rule"),
        "MODEL": language.say("the model"),
        "LIST": language.say("a list"),
        "MANUAL_REVIEW": language.say("a person"),
        "RATE_LIMIT": language.say("a limit"),
        "FALLBACK": language.say("the fallback"),
    }
    return names.get(source, source)


def entity_name(entity: str, language: Language) -> str:
    """A kind of entity, as a reader calls it.

    >>> from serving.language import ENGLISH
    >>> entity_name("payment_method", ENGLISH)
    'payment method'
    """
    names = {
        "customer": language.say("customer"),
        "device": language.say("device"),
        "payment_method": language.say("payment method"),
        "address": language.say("address"),
        "ip": language.say("IP address"),
        "email": language.say("e-mail address"),
    }
    return names.get(entity, entity)


def risk_level_name(level: str, language: Language) -> str:
    """Where a score stands among all requests, as a reader calls it.

    >>> from serving.language import ENGLISH
    >>> risk_level_name("highest", ENGLISH)
    'highest'
    """
    names = {
        "highest": language.say("highest"),
        "high": language.say("high"),
        "elevated": language.say("elevated"),
        "low": language.say("low"),
        "lowest": language.say("lowest"),
    }
    return names.get(level, level)


def follow_up_name(code: str, language: Language) -> str:
    """What may be offered instead, as a reader calls it.

    >>> from serving.language import ENGLISH
    >>> follow_up_name("WAIT_FOR_RETURN", ENGLISH)
    'wait for the return'
    """
    names = {
        "STORE_CREDIT": language.say("offer store credit"),
        "WAIT_FOR_RETURN": language.say("wait for the return"),
        "STEP_UP_VERIFICATION": language.say("verify the account's owner"),
        "PARTIAL_AMOUNT": language.say("offer a part of the amount"),
    }
    return names.get(code, code)


def missing(fact: str, language: Language) -> str:
    """That a fact which a rule needs is not known, as a reader calls it.

    >>> from serving.language import ENGLISH
    >>> missing("ip_risk", ENGLISH)
    'the risk of the IP address is not known'
    >>> missing("payment_method_expired", ENGLISH)
    'not known: the month in which the payment method expires is over'
    >>> missing("my_fact", ENGLISH)
    'not known: my_fact'
    """
    if (feature := BY_NAME.get(fact)) is not None:
        return language.say(feature.sentence.none)
    meaning = MEANING.get(fact)
    what = fact if meaning is None else language.say(meaning.says)
    return language.say("not known: {what}", what=what)
