"""Translations: every mistake is told when the service starts, none when something is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.language import Language
from serving.translations import LanguageError

HEAD = """\
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Plural-Forms: {plurals}\\n"

msgid "less than {{share}}"
msgstr "{single}"

msgid "{{value}} day"
msgid_plural "{{value}} days"
msgstr[0] "{one}"
msgstr[1] "{many}"
"""
GOOD = {"plurals": "nplurals=2; plural=(n != 1);", "single": "unter {share}",
        "one": "ein Tag", "many": "{value} Tage"}  # fmt: skip


def language(folder: Path, tag: str = "de", **changed: str) -> Language:
    (folder / "de.po").write_text(HEAD.format(**{**GOOD, **changed}), encoding="utf-8")
    return Language.of(tag, folder)


def test_a_translation_is_spoken(tmp_path: Path) -> None:
    german = language(tmp_path)
    assert german.say("less than {share}", share="1 %") == "unter 1 %"
    assert [german.duration(days) for days in (2.0, 3.0)] == ["2 Tage", "3 Tage"]
    assert german.say_of(1, "{value} day", "{value} days") == "ein Tag"
    assert german.say("never translated") == "never translated"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"single": "unter {anteil}"}, "{anteil} is not in"),
        ({"single": "weniger"}, "lacks {share}"),
        ({"many": "Tage: {wert}"}, "{wert} is not in"),
        ({"single": "{share"}, "'{share': expected '}'"),
        ({"single": "share}"}, "Single '}'"),
        ({"single": "{share} {}"}, "expected a name between braces"),
        ({"single": "{share} {0}"}, "expected a name between braces"),
        ({"single": "{share!r}"}, "got {share!r}"),
        ({"single": "{share:>300000000}"}, "got {share:>300000000}"),
        ({"single": "{share:{other}}"}, "got {share:{other}}"),
        ({"single": "{share.__class__}"}, "got {share.__class__}"),
        ({"single": "{share[0]}"}, "got {share[0]}"),
        ({"plurals": "nplurals=999999999; plural=0;"}, "nplurals: expected 1 to 6"),
        ({"plurals": "nplurals=2; plural=1/n;"}, "is not told of every number"),
        ({"plurals": "nplurals=2; plural=n;"}, "expected 0 to 1"),
        ({"plurals": "nplurals=2; plural=__import__('os');"}, "de.po"),
        ({"plurals": "nplurals=2; plural=" + "(" * 500 + "n" + ")" * 500 + ";"}, "de.po"),
    ],
)
def test_a_mistake_is_refused_with_its_file(
    changed: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(LanguageError) as refused:
        language(tmp_path, **changed)
    assert told in str(refused.value)
    assert "de.po" in str(refused.value)


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(LanguageError) as refused:
        language(tmp_path, single="weniger", many="{wert}")
    first, second, third = str(refused.value).splitlines()
    assert "de.po:6: 'weniger' lacks {share}" in first
    assert "de.po:9: {wert} is not in '{value} day'" in second + third


@pytest.mark.parametrize("tag", ["../../x", "/etc/passwd", "d\0", "de" * 200, "", "xx", "de.po"])
def test_what_is_no_language_is_refused(tag: str, tmp_path: Path) -> None:
    with pytest.raises(LanguageError, match=r"^language: expected "):
        language(tmp_path, tag)
