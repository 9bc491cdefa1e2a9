"""Conditions: what is refused, where, and what unknown facts mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.condition import Amount, Condition, ConditionError, known_facts

KINDS = {"amount_minor": "double", "age_days": "double", "reason": "string", "final_sale": "bool",
         "tags": "strings"}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "final_sale",
        "!!final_sale == true",
        "amount_minor - 2.0 * age_days >= -.5e1 && reason != 'A'",
        'reason in ["A", r"B"] || reason.startsWith("C") && !("D".contains(reason))',
        "final_sale ? amount_minor > 1.0 : age_days < 2.0 ? false : true // why",
        "(amount_minor) in [1.0, age_days]",
        "amount_minor / age_days > 2.0\n  && final_sale",
        '"A" in tags && !(reason in tags)',
    ],
)
def test_sound_conditions_are_accepted_and_always_answer(text):
    condition = Condition.parse(text, KINDS)
    facts = {"amount_minor": 3.0, "age_days": 0.0, "reason": "A", "final_sale": False,
             "tags": ("A", "B")}  # fmt: skip
    assert condition.holds(facts) in (True, False)


@pytest.mark.parametrize(
    ("text", "place", "message", "expected"),
    [
        ("amount_minor >= 4", (1, 17), "'4' is an integer, and facts are doubles", "a double"),
        ("final_sale &&\n age_days > 0x1Fu", (2, 13), "'0x1Fu' is an integer", "a double"),
        ("amount_minor", (1, 1), "the condition is a double", "a bool"),
        ("final_sale ? reason : reason", (1, 1), "the condition is a string", "a bool"),
        ('amount_minor == "4"', (1, 14), "'==' between double and string", "one type"),
        ('amount_minor in ["4"]', (1, 14), "'in' between double and list of string", "double"),
        ('reason in ["A", 4.0] ', (1, 11), "a list of double and string", "one type"),
        ("[1.0] == [1.0]", (1, 7), "'==' between list of double", "one type"),
        ('reason < "B"', (1, 8), "'<' between string and string", "a double on both sides"),
        ("final_sale || age_days", (1, 12), "'||' between bool and double", "a bool"),
        ("!amount_minor", (1, 1), "'!' before a double", "a bool"),
        ("-reason > 1.0", (1, 1), "'-' before a string", "a double"),
        ("age_days % 2.0 > 1.0", (1, 10), "'%' is not defined for doubles", "*"),
        ("age_days.contains(reason)", (1, 9), "'.contains' on a double", "two strings"),
        ("reason ? true : false", (1, 8), "'?' chooses by a string", "a bool"),
        ("final_sale ? 1.0 : true", (1, 12), "'?' between double and bool", "one type"),
        ("reason.size() > 1.0", (1, 8), "'size' is not available", "facts, literals"),
        ("has(reason.length)", (1, 1), "'has' is not available", "facts, literals"),
        ("reason == null", (1, 11), "'null' is not available", "facts, literals"),
        ("[1.0][0] > 1.0", (1, 6), "'[' is not available", "facts, literals"),
        ("{1.0: true}[1.0]", (1, 1), "'{' is not available", "facts, literals"),
        ("{1.0: true}", (1, 1), "'{' is not available", "facts, literals"),
        ("amount_minor > 1.0 &&", (1, 22), "ends too early", "the rest of a CEL condition"),
        ("amount_minor > > 1.0", (1, 16), "'>' has no meaning here", "a CEL condition"),
        ("final_sale)", (1, 11), "')' has no meaning here", "a CEL condition"),
        ("final_sale # why", (1, 12), "'#' has no meaning here", "a CEL condition"),
        ("reason == 'A", (1, 11), "has no meaning here", "a CEL condition"),
        ("", (1, 1), "ends too early", "the rest of a CEL condition"),
        ("final_sale and\nage_days > 1.0", (1, 12), "'and' is not CEL", "&&"),
        ("reason = 'A'", (1, 8), "'=' is not CEL", "=="),
        ("reason == “A”", (1, 11), "'“' is not CEL", '"'),
        ("reason == 'A' == true", (1, 15), "'==' after another comparison", "joined by '&&'"),
        ("1.0 < age_days < 2.0", (1, 16), "'<' after another comparison", "joined by '&&'"),
        ("reason in []", (1, 11), "an empty list", "at least one value"),
        ("True", (1, 1), "unknown fact 'True'", "the name of a fact"),
        ('reason in tags || tags == ["A"]', (1, 24), "'==' between list of string", "one type"),
        (
            "amount_minor in tags",
            (1, 14),
            "'in' between double and list of string",
            "list of double",
        ),
        ("tags", (1, 1), "the condition is a list of string", "a bool"),
        ("(" * 30 + "final_sale" + ")" * 30, (1, 25), "nested too deeply", "a condition"),
        ("(" * 300 + "final_sale" + ")" * 300, (1, 1), "nested too deeply", "a condition"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_was_expected(text, place, message, expected):
    with pytest.raises(ConditionError) as refused:
        Condition.parse(text, KINDS)
    fault = refused.value.faults[0]
    assert (fault.line, fault.column) == place
    assert message in fault.message
    assert expected in fault.expected


def test_every_mistake_is_reported_once_and_no_mistake_makes_others():
    with pytest.raises(ConditionError) as refused:
        Condition.parse('amount_minr + 1 > 2.0 && raeson in ["A"] && final_sale == 3.0', KINDS)
    assert [(f.message, f.nearest) for f in refused.value.faults] == [
        ("unknown fact 'amount_minr'", "amount_minor"),
        ("'1' is an integer, and facts are doubles", "1.0"),
        ("unknown fact 'raeson'", "reason"),
        ("'==' between bool and double", None),
    ]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("amount_minor > '5'", "5.0"),
        ("'2.5' == amount_minor", "2.5"),
        ("amount_minor > reason", None),
        ("amount_minor > 'five'", None),
        ("reason == 5.0", None),
        ("amount_minor >= 0x1Fu", "31.0"),
        ("finalsale", "final_sale"),
        ("True", "true"),
    ],
)
def test_the_nearest_thing_that_would_be_right_is_suggested(text, near):
    with pytest.raises(ConditionError) as refused:
        Condition.parse(text, KINDS)
    assert refused.value.faults[0].nearest == near


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("final_sale || reason == 'A'", True),
        ("!final_sale && reason == 'A'", False),
        ("final_sale && reason == 'A'", None),
        ("!(reason == 'A')", None),
        ("reason in ['A']", None),
        ("0.0 / 0.0 > amount_minor", None),
    ],
)
def test_unknown_facts_follow_the_logic_of_cel(text, outcome):
    facts = {"final_sale": True, "amount_minor": 1.0}
    assert Condition.parse(text, KINDS).holds(facts) is outcome


atoms = st.sampled_from(["final_sale", "amount_minor > 1.0", "reason == 'A'", "true", "false"])
logic = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!{}".format, inner.filter(lambda text: text.startswith(("(", "!")))),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
    ),
    max_leaves=8,
)


@given(
    text=logic,
    final_sale=st.booleans(),
    amount_minor=st.sampled_from([0.0, 2.0]),
    reason=st.sampled_from(["A", "B"]),
    dropped=st.sampled_from(["final_sale", "amount_minor", "reason"]),
)
def test_dropping_a_fact_unsettles_but_never_reverses(
    text, final_sale, amount_minor, reason, dropped
):
    condition = Condition.parse(text, KINDS)
    facts = {"final_sale": final_sale, "amount_minor": amount_minor, "reason": reason}
    settled = condition.holds(facts)
    del facts[dropped]
    assert settled is not None
    assert condition.holds(facts) in (settled, None)


@given(st.text(alphabet="ab &|!()<>=.'\"1[]?:-/", max_size=30))
def test_any_text_is_either_a_condition_or_refused_with_faults(text):
    try:
        condition = Condition.parse(text, {"a": "double", "b": "bool"})
    except ConditionError as refused:
        assert refused.faults
    else:
        answers = {condition.holds({"a": a, "b": True}) for a in (-1.0, 1.0)}
        assert answers <= {True, False, None}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *[("1", "double"), (True, "double"), (1.0, "string"), (1.0, "bool"), ([], "double")],
        *[("A", "list of strings"), (["A", 1], "string")],
    ],
)
def test_a_fact_of_another_kind_is_refused_by_name(value, kind):
    expected = f"fact x: expected a {kind}"
    kind = "strings" if value == ["A", 1] or kind == "list of strings" else kind
    with pytest.raises(TypeError, match=expected):
        known_facts({"x": value}, {"x": kind})


def test_a_list_of_strings_is_known_even_when_empty():
    kinds = {"tags": "strings"}
    assert known_facts({"tags": []}, kinds) == {"tags": ()}
    assert known_facts({"tags": ["A"]}, kinds) == {"tags": ("A",)}
    assert known_facts({"tags": None}, kinds) == {}
    condition = Condition.parse('"A" in tags', kinds)
    assert [condition.holds(known) for known in ({"tags": ("A",)}, {"tags": ()}, {})] == [
        True,
        False,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("amount_minor - age_days", 97),
        ("amount_minor * 0.5", 50),
        ("-amount_minor / 3.0", -34),
        ("amount_minor / 0.0", None),
        ("0.0 / 0.0", None),
        ("final_sale ? amount_minor : age_days", None),
    ],
)
def test_an_amount_is_rounded_down_or_unknown(text, minor):
    assert Amount.parse(text, KINDS).minor({"amount_minor": 100.5, "age_days": 3.0}) == minor


def test_an_amount_is_a_double():
    with pytest.raises(ConditionError, match="the amount is a bool"):
        Amount.parse("final_sale", KINDS)
