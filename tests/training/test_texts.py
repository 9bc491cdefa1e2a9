"""The catalogue of texts is whole: nothing that analysts are told escapes translation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from babel.messages.pofile import read_po, write_po

from features.catalog import FEATURES, MODEL_FEATURES
from serving.codes import NAMES, name_of_code
from serving.explanation.told import told
from serving.language import Language
from serving.model import Reference
from serving.reasons import Ranking, sentence
from serving.translations import LanguageError
from training.texts import PAGE, in_program, render

OPEN, CLOSE = "⟦", "⟧"


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Language:
    """German in which every text of the catalogue is itself, between brackets."""
    folder = tmp_path_factory.mktemp("texts")
    with PAGE.open("rb") as file:
        catalogue = read_po(file, locale="de")
    for message in catalogue:
        if message.id:
            texts = (message.id,) if isinstance(message.id, str) else message.id
            marked = tuple(f"{OPEN}{text}{CLOSE}" for text in texts)
            message.string = marked[0] if isinstance(message.id, str) else marked
    with (folder / "de.po").open("wb") as file:
        write_po(file, catalogue)
    return Language.of("de", folder)


def is_wrapped(text: str) -> bool:
    """Whether all of a text stands between brackets, however deep."""
    return text.startswith(OPEN) and text.endswith(CLOSE)


def test_the_catalogue_is_up_to_date() -> None:
    stale = "serving/texts/recourse.pot is stale: python -m training.texts"
    assert PAGE.read_text(encoding="utf-8") == render(), stale


def test_it_names_no_machine_and_no_time() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"20\d\d-\d\d|/work|/home|@", text)


def test_what_is_no_literal_is_no_text_of_a_program() -> None:
    assert list(in_program('say(x); say("a", 1); say_of(n, one, "many")', "x")) == []


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_sentence_of_a_feature_is_translated(wrapped: Language, feature) -> None:
    values = (0.0, 1.0, 2.0, np.nan) + ((-2.0,) if feature.unit != "code" else ())
    for value in values:
        assert is_wrapped(sentence(feature, value, "GBP", wrapped))


def test_every_name_of_a_code_is_translated(wrapped: Language) -> None:
    assert all(is_wrapped(name_of_code(code, wrapped)) for code in NAMES)


def test_nothing_that_is_told_of_reasons_escapes_the_catalogue(wrapped: Language) -> None:
    random, number = np.random.default_rng(7), len(MODEL_FEATURES)
    seen = random.exponential(3, (500, number))
    seen[random.random(seen.shape) < 0.1] = np.nan
    reference = Reference.of(seen, np.linspace(0, 1, 500))
    ranking = Ranking(MODEL_FEATURES, reference, "GBP", wrapped)
    for _ in range(20):
        values = random.exponential(4, number).round(1)
        values[[f.unit in ("count", "flag", "code") for f in MODEL_FEATURES]] //= 1
        values[random.random(number) < 0.2] = np.nan
        weights, past = random.normal(size=number), random.exponential(4, (3, number))
        reasons = ranking.reasons(values, weights, 99)
        assert reasons
        assert all(is_wrapped(reason.description) for reason in reasons)
        for reason in (one for side in told(MODEL_FEATURES, values, weights, past, reference,
                                            "GBP", wrapped) for one in side):  # fmt: skip
            assert is_wrapped(reason.name)
            for fact in reason.facts:
                assert is_wrapped(fact.sentence)
                assert all(text is None or is_wrapped(text)
                           for text in (fact.standing, fact.own_past))  # fmt: skip


GERMAN = """\
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"

msgid "the refund is worth {value}"
msgstr "um {value} geht es bei der Erstattung"

msgid "{value} chargeback on this customer in a year"
msgid_plural "{value} chargebacks on this customer in a year"
msgstr[0] "{value} Rückbuchung bei diesem Kunden in einem Jahr"
msgstr[1] "{value} Rückbuchungen bei diesem Kunden in einem Jahr"

msgid "{fact}; {standing}"
msgstr "{fact} ({standing})"

msgid "{side} of {parts} refund requests have fewer"
msgstr "von {parts} Anträgen haben {side} weniger"
"""


@pytest.fixture
def german(tmp_path: Path) -> Language:
    (tmp_path / "de.po").write_text(GERMAN, encoding="utf-8")
    return Language.of("de", tmp_path)


def told_in(language: Language, name: str, value: float) -> str:
    feature = next(feature for feature in FEATURES if feature.name == name)
    seen = np.arange(2_000.0)[:, None]
    ranking = Ranking([feature], Reference.of(seen, seen[:, 0]), "EUR", language)
    (reason,) = ranking.reasons(np.array([value]), np.array([1.0]))
    return reason.description


def test_marks_plurals_and_the_order_of_words_are_those_of_the_language(german: Language) -> None:
    assert told_in(german, "payable_minor", 100_000.0).startswith(
        "um 1.000,00 EUR geht es bei der Erstattung ("
    )
    chargebacks = "chargeback_count_by_customer_365d"
    assert told_in(german, chargebacks, 1_000.0) == (
        "1.000 Rückbuchungen bei diesem Kunden in einem Jahr"
    )
    assert told_in(german, chargebacks, 1_990.0) == (
        "1.990 Rückbuchungen bei diesem Kunden in einem Jahr (von 1.000 Anträgen haben 995 weniger)"
    )
    one = sentence(next(f for f in FEATURES if f.name == chargebacks), 1.0, "EUR", german)
    assert one == "1 Rückbuchung bei diesem Kunden in einem Jahr"


def test_what_is_not_translated_is_said_in_english(german: Language) -> None:
    assert told_in(german, "order_count_by_customer_365d", 900.0) == (
        "this customer placed 900 orders in a year"
    )


def test_a_translation_with_a_name_that_is_not_in_the_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "de.po").write_text(GERMAN.replace("um {value}", "um {wert}"), encoding="utf-8")
    with pytest.raises(LanguageError, match=r"\{wert\} is not in 'the refund is worth"):
        Language.of("de", tmp_path)
