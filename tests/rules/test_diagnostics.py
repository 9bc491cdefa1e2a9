"""What an analyst is told: golden reports, and the place of every fault in the text."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rules.diagnostics import render
from rules.policy import Policy, PolicyError
from rules.problems import Problem
from rules.source import LONGEST, Source, lines_of

HERE = Path(__file__).parent


def refused(text: str, kinds) -> PolicyError:
    with pytest.raises(PolicyError) as error:
        Policy.from_yaml(text, facts=kinds)
    return error.value


@pytest.mark.parametrize("name", ["faulty_policy", "ten_mistakes"])
def test_reports_read_as_they_are_meant_to(name, kinds):
    """Golden files, read by people: change one only for a message that teaches better."""
    text = (HERE / f"{name}.yaml").read_text(encoding="utf-8")
    report = render(refused(text, kinds).problems, text, f"{name}.yaml")
    assert report + "\n" == (HERE / f"{name}.txt").read_text(encoding="utf-8")


def test_ten_mistakes_make_ten_problems_each_with_a_place_and_a_remedy(kinds):
    text = (HERE / "ten_mistakes.yaml").read_text(encoding="utf-8")
    problems = refused(text, kinds).problems
    assert len({(problem.line, problem.column) for problem in problems}) == len(problems) == 10
    assert all(problem.place and problem.expected for problem in problems)
    assert str(problems[3]) == (
        "line 26:10 rules.serial_empty_box.when: unknown fact 'refund_cuont_by_customer_90d'; "
        "expected the name of a fact; did you mean refund_count_by_customer_90d?"
    )


def test_a_report_without_places_and_with_control_characters_is_harmless():
    text = "version: '\x07'\n"
    problems = [
        Problem("policy", None, None, "a\x1b[2Jb", "", "c\rd"),
        Problem("version", 1, 10, "m", "", "e", "near\nest"),
    ]
    assert render(problems, text, "p.yaml") == (
        "error: a [2Jb\n --> p.yaml (policy)\n = expected c d\n\n"
        "error: m\n  --> p.yaml:1:10 (version)\n  |\n1 | version: ' '\n  |          ^\n"
        "  = expected e\n  = help: did you mean near est?\n\n2 problems in p.yaml"
    )


words = st.sampled_from(["alpha", "b", "&&", "'x'", '"y"', "==", "é", "\\", "#c", "- d", "k: v"])
gaps = st.sampled_from([" ", "  ", "\n", "\n\n", "\n  ", " \n"])


@given(
    st.lists(st.tuples(words, gaps), min_size=1, max_size=12),
    st.sampled_from([None, "|", ">", '"', "'"]),
    st.integers(20, 60),
    st.sampled_from(["\n", "\r\n"]),
)
def test_every_word_of_a_string_is_found_where_yaml_has_written_it(parts, style, width, line_break):
    value = "".join(word + gap for word, gap in parts).strip() + "\n" * (style in ("|", ">"))
    node = {"outer": {"before": 1, "when": value}}

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        str, lambda dumper, text: dumper.represent_scalar(
            "tag:yaml.org,2002:str", text, style=style if text == value else None
        )
    )  # fmt: skip
    text = yaml.dump(node, Dumper=Dumper, width=width, allow_unicode=True).replace("\n", line_break)
    source = Source.read(text)
    assert source.value == node
    lines = lines_of(text)
    for match in re.finditer(r"[a-zé&=]+", value):
        before = value[: match.start()]
        line, column = before.count("\n") + 1, match.start() - (before.rfind("\n") + 1) + 1
        place = source.place_within(("outer", "when"), line, column, len(match[0]))
        shown = lines[place.line - 1][place.column - 1 :][: place.length]
        assert shown == match[0] or "\\" in text  # an escape stands for its character


@pytest.mark.parametrize(
    ("written", "marked"),
    [
        ("when: a > 1", "1"),
        ("when: 'a > 1'", "1"),
        ("when: \"\\x61 > \\x31\"", "\\x31"),
        ("when: \"a \\\n    > 1\"", "1"),
        ("when: 'b == ''x'' || a\n  > 1'", "1"),
        ("when: |  # why\n      a\n\n      > 1\n", "1"),
        ("when: >2-\n      a\n        > 1", "1"),
        ("when: a\n  > 1", "1"),
        ("{when: a > 1}", "1"),
        ("when: aa > 1.0", "aa"),
        ("when: 'a > 1.0 &&'", "'"),
        ("when: |\n  a > 1.0 &&\n\nnote: x", ""),
    ],
)  # fmt: skip
def test_the_caret_points_at_the_fault_itself(written, marked):
    from rules.condition import Condition, ConditionError

    source = Source.read(written)
    with pytest.raises(ConditionError) as error:
        Condition.parse(source.value["when"], {"a": "double", "b": "string"})
    fault = error.value.faults[0]
    place = source.place_within(("when",), fault.line, fault.column, fault.length)
    line = lines_of(written)[place.line - 1]
    assert line[place.column - 1 :][: place.length] == marked


def test_a_text_too_long_is_not_even_read(kinds):
    error = refused("#" * (LONGEST + 1), kinds)
    assert [problem.message for problem in error.problems] == ["too long"]


def test_an_unquoted_exclamation_mark_and_a_bare_quote_are_explained(kinds):
    told = [problem.message for problem in refused("note: !order_known", kinds).problems]
    assert "a text that begins with '!'" in told
    (broken,) = refused('rules:\n- when: "a" in b\n', kinds).problems
    assert (broken.line, broken.message) == (2, "not YAML")
    assert "after |-" in broken.expected
