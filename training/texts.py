"""The catalogue of texts that analysts are told, for translators: `render`.

``python -m training.texts`` writes it to ``serving/texts/recourse.pot``; a test fails when it is
stale. Texts stand where they are said, as the arguments of ``say`` and ``say_of`` in programs and
templates; the sentences of features and the names of reason codes are read off the values.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from babel.messages.catalog import Catalog
from babel.messages.pofile import write_po
from jinja2 import Environment
from jinja2.ext import extract_from_ast

from features.catalog import BY_NAME, FEATURES
from features.feature import Feature
from serving.codes import NAMES
from serving.facts import MEANING
from serving.language import TEXTS

PAGE: Final = TEXTS / "recourse.pot"

_ROOT: Final = Path(__file__).parents[1]
_SPOKEN: Final = ("serving", "training")
"""The folders in which texts are said."""

_HEAD: Final = """\
# The texts of Recourse. Made by `python -m training.texts`; do not edit it.
# To translate it, copy it to CODE.po (de.po, pt-BR.po, …), fill in what is said, and write in its
# head which plural forms the language has. {names} stand for what is filled in, in any order.
msgid ""
msgstr ""
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"

"""


class Said(NamedTuple):
    """A text and where it is said; of a counted thing, of one and of many."""

    text: str | tuple[str, str]
    where: str
    comment: str = ""


def render() -> str:
    """The whole catalogue, as gettext's programs read it."""
    catalogue = Catalog(fuzzy=False)
    for said in _all():
        known = catalogue.get(said.text if isinstance(said.text, str) else said.text[0])
        if known is not None and known.id != said.text:
            raise ValueError(f"{said.where}: {said.text!r} is said as {known.id!r} elsewhere")
        comments = [said.comment] if said.comment and known is None else []
        catalogue.add(said.text, locations=[(said.where, 0)], auto_comments=comments)
    for message in catalogue:
        message.flags -= {"python-format", "python-brace-format"}  # their checks know other names
        message.flags |= {"python-brace-format"} if message.id and "{" in str(message.id) else set()
    file = io.BytesIO()
    write_po(file, catalogue, width=100, omit_header=True, include_lineno=False)
    return _HEAD + file.getvalue().decode().strip() + "\n"


def _all() -> Iterator[Said]:
    """Every text: programs and templates by name, then features and codes."""
    for folder in _SPOKEN:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            yield from in_program(path.read_text(encoding="utf-8"), _name(path))
        for path in sorted((_ROOT / folder).rglob("*.j2")):
            yield from in_template(path.read_text(encoding="utf-8"), _name(path))
    for feature in FEATURES:
        yield from (Said(text, "features/catalog.py", feature.name) for text in _of(feature))
    for fact, meaning in MEANING.items():
        if fact not in BY_NAME:
            yield Said(meaning.says, "serving/facts.py", fact)
    for code, name in NAMES.items():
        yield Said(name, "serving/codes.py", code)


def _name(path: Path) -> str:
    return path.relative_to(_ROOT).as_posix()


def _of(feature: Feature) -> Iterator[str | tuple[str, str]]:
    """What a feature may say: a flag's two sentences are no plural."""
    sentence = feature.sentence
    if feature.unit != "flag" and sentence.one != sentence.many:
        yield sentence.one, sentence.many
    else:
        yield from dict.fromkeys((sentence.one, sentence.many))
    yield sentence.none
    if sentence.below:
        yield sentence.below


def in_program(source: str, where: str) -> Iterator[Said]:
    """The texts that a program says, where they stand as they are.

    >>> said = in_program('language.say_of(n, "{value} day", "{value} days"); say("a " "day")', "x")
    >>> [one.text for one in said]
    [('{value} day', '{value} days'), 'a day']
    """
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        texts = tuple(each.value for each in node.args if isinstance(each, ast.Constant)
                      and isinstance(each.value, str))  # fmt: skip
        if called == "say" and len(node.args) == 1 and texts:
            yield Said(texts[0], where)
        if called == "say_of" and len(node.args) == 3 and len(texts) == 2:
            yield Said((texts[0], texts[1]), where)


def in_template(source: str, where: str) -> Iterator[Said]:
    """The texts that a template says.

    >>> said = in_template("{{ say('a day') }}{{ say_of(n, '{value} day', '{value} days') }}", "x")
    >>> [one.text for one in said]
    ['a day', ('{value} day', '{value} days')]
    """
    found = extract_from_ast(Environment(autoescape=True).parse(source), ("say", "say_of"))
    for _, called, message in found:
        texts = (message,) if isinstance(message, str) else message or ()
        known = [text for text in texts if text is not None]
        if called == "say" and known:
            yield Said(known[0], where)
        if called == "say_of" and len(known) == 2:
            yield Said((known[0], known[1]), where)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
