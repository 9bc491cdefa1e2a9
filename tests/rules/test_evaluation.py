"""Evaluation against the CEL library: the same answer to every condition on every set of facts."""

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.condition import Amount, Condition

KINDS = {"a": "double", "b": "double", "s": "string", "t": "string", "p": "bool", "q": "bool",
         "tags": "strings"}  # fmt: skip

numbers = st.sampled_from(["0.0", "1.0", "-1.5", "2.0", "1e300", "a", "b", "-a"])
words = st.sampled_from(['"A"', "'AB'", 'r"A\\"', '"\\x41\\u00e9"', '""', "s", "t"])
flags = st.sampled_from(["true", "false", "p", "q"])


def joined(signs, part):
    return st.builds("({} {} {})".format, part, st.sampled_from(signs), part)


def chosen(flag, part):
    return st.builds("({} ? {} : {})".format, flag, part, part)


sums = st.recursive(
    numbers,
    lambda part: joined("+-*/", part) | st.builds("-({})".format, part) | chosen(flags, part),
    max_leaves=4,
)
atoms = st.one_of(
    flags,
    joined(["<", "<=", ">", ">=", "==", "!="], sums),
    joined(["==", "!="], words),
    joined(["==", "!="], flags),
    st.builds("{} in [{}, {}]".format, sums, sums, sums),
    st.builds("{} in [{}, {}]".format, words, words, words),
    st.builds("{} in tags".format, words),
    st.builds("{}.{}({})".format, words,
              st.sampled_from(["contains", "startsWith", "endsWith"]), words),
)  # fmt: skip
conditions = st.recursive(
    atoms,
    lambda part: st.one_of(
        joined(["&&", "||"], part),
        st.builds("({} && {} && {})".format, part, part, part),
        st.builds("({} || {} || {} && {})".format, part, part, part, part),
        st.builds("{}({})".format, st.sampled_from(["!", "!!", "!!!"]), part),
        chosen(part, part),
    ),
    max_leaves=6,
)
known = st.fixed_dictionaries(
    {},
    optional={
        "a": st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e308, float("inf")]),
        "b": st.sampled_from([0.0, 1.0, 2.5, -1e308, float("-inf")]),
        "s": st.sampled_from(["A", "AB", "Aé", ""]),
        "t": st.sampled_from(["A", "B"]),
        "p": st.booleans(),
        "q": st.booleans(),
        "tags": st.sampled_from([(), ("A",), ("AB", "")]),
    },
)


def by_the_library(text, facts):
    try:
        return cel.compile(text).execute(cel.Context(facts))
    except (RuntimeError, TypeError, ValueError):
        return None


@settings(max_examples=300, deadline=None)
@given(conditions, known)
def test_every_condition_is_answered_as_the_cel_library_answers_it(text, facts):
    assert Condition.parse(text, KINDS).holds(facts) is by_the_library(text, facts)


@settings(max_examples=300, deadline=None)
@given(sums, known)
def test_every_amount_is_what_the_cel_library_computes(text, facts):
    value = by_the_library(text, facts)
    computed = Amount.parse(text, KINDS).run(facts)
    assert computed == value or (computed != computed and value != value)


@settings(max_examples=100, deadline=None)
@given(conditions)
def test_the_facts_read_are_those_the_cel_library_names(text):
    assert list(Condition.parse(text, KINDS).reads) == cel.compile(text).variables()


@pytest.mark.parametrize(
    "text",
    [
        "[1.0, 2.0].exists(x, x > a)",
        "[1.0].all(x, x > a)",
        "tags.exists_one(x, x == s)",
        "tags.filter(x, x == s) == tags",
        "tags.map(x, x + s) == tags",
        "has(a.b)",
        "s.matches('(a+)+$')",
        "matches(s, 'a')",
        "size(tags) > 1",
        "s.size() > 1",
        "double(s) > 1.0",
        "timestamp(s) < timestamp(t)",
        "duration(s) > duration(t)",
        "dyn(a) == s",
        "type(a) == type(b)",
        "tags[0] == s",
        "{'a': a}['a'] > 1.0",
        "a.b > 1.0",
        ".a > 1.0",
        "s + t == s",
        "Message{x: 1}.x == 1",
        "b'A' == s",
        "cel.bind(x, a, x > 1.0)",
        "true ? tags : tags",
    ],
)
def test_nothing_is_accepted_that_loops_calls_or_reads_anything_but_facts(text):
    """What remains is finite: a text of bounded size, each part of it evaluated at most once."""
    with pytest.raises(ValueError, match=r"is not available|between|is a list|unknown fact"):
        Condition.parse(text, KINDS)


def test_each_fact_in_a_text_is_read_at_most_once_per_mention():
    class Counting(dict):
        reads = 0

        def get(self, name, default=None):
            Counting.reads += 1
            return dict.get(self, name, default)

    text = " && ".join(["(a > 1.0 || b / a in [a, b])"] * 60)
    assert Condition.parse(text, KINDS).holds(Counting(a=0.5, b=0.25)) is True
    assert Counting.reads <= text.count("a") + text.count("b")


def test_the_longest_and_the_deepest_text_accepted_stays_within_the_interpreters_stack():
    deep = "!(" * 23 + "p" + ")" * 23
    chain = " - ".join(["a"] * 400) + " < 1.0"
    for text in (deep, chain, " || ".join(["q"] * 400), f"({chain}) && {deep}"):
        assert Condition.parse(text, KINDS).holds({"a": 1.0, "p": True, "q": False}) is not None
