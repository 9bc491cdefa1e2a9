"""What a sound policy probably means otherwise: warnings, which refuse nothing.

The backend may send words of its own, so a word that nobody knows is no error; most often it is a
misspelt one, and its rule would never hit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial

import cel

from rules.document import Rule
from rules.lexer import Token, fault_at, nearest, tokens_of
from rules.policy import Policy
from rules.problems import Findings, Problem
from rules.source import Source

#: The words that each fact is known to have, by its name.
Words = Mapping[str, Collection[str]]
_Note = Callable[[Findings], None]


def warnings(policy: Policy, words: Words) -> tuple[Problem, ...]:
    """Find words that are none of a fact's, and facts of examples that their rule never reads.

    >>> text = '''
    ... version: "1"
    ... bands: []
    ... rules:
    ... - {id: a, version: 1, stage: risk, when: claim == 'FUL', action: PREVENT, reason: A,
    ...    description: d, examples: {hit: [{claim: FUL}], miss: [{claim: PARTIAL}]}}
    ... '''
    >>> policy = Policy.from_yaml(text, facts={"claim": "string"})
    >>> [str(one) for one in warnings(policy, {"claim": ("FULL", "PARTIAL")})][0]
    "line 5:51 rules.a.when: claim is not known to be 'FUL'; expected FULL or PARTIAL; \
did you mean FULL?"
    """
    notes: list[_Note] = []
    for i, rule in enumerate(policy.document.rules):
        for fact, token in _compared(rule.when):
            word = cel.evaluate(token.text)
            if word not in words.get(fact, (word,)):
                message = f"{fact} is not known to be {word!r}"
                known = words[fact]
                fault = fault_at(rule.when, token, message, _either(known), nearest(word, known))
                notes.append(partial(Findings.add_fault, path=("rules", i, "when"), fault=fault))
        notes += _of_examples(i, rule, words, _read(policy, rule))
    if not notes:
        return ()  # mostly; then the text is not read again
    findings = Findings(Source.read(policy.text))
    for note in notes:
        note(findings)
    found = sorted(findings.problems, key=lambda problem: (problem.line or 0, problem.column or 0))
    return tuple(replace(problem, is_warning=True) for problem in found)


def _read(policy: Policy, rule: Rule) -> Collection[str]:
    return next((held.reads for held in policy.rules if held.id == rule.id), ())


def _of_examples(i: int, rule: Rule, words: Words, reads: Collection[str]) -> Iterator[_Note]:
    for name, examples in rule.examples:
        for j, example in enumerate(examples):
            for fact, value in example.items():
                path = ("rules", i, "examples", name, j, fact)
                note = partial(Findings.add, path=path, value="")
                if fact not in reads:
                    near = nearest(fact, reads)
                    message, expected = (
                        "the rule does not read this fact",
                        "a fact of the condition",
                    )
                    yield partial(note, message=message, expected=expected, near=near, key=True)
                elif isinstance(value, str) and value not in words.get(fact, (value,)):
                    known = words[fact]
                    message = f"{fact} is not known to be {value!r}"
                    near = nearest(value, known)
                    yield partial(note, message=message, expected=_either(known), near=near)


def _either(known: Collection[str]) -> str:
    return " or ".join(known)


def _compared(text: str) -> Iterator[tuple[str, Token]]:
    """Yield each fact of a condition that is compared with a word, and the word."""
    tokens = tokens_of(text)
    for at, token in enumerate(tokens[:-2]):
        sign, other = tokens[at + 1 : at + 3]
        if sign.text in ("==", "!="):
            for fact, word in ((token, other), (other, token)):
                if (fact.kind, word.kind) == ("name", "string"):
                    yield fact.text, word
        elif (token.kind, sign.text, other.text) == ("name", "in", "["):
            for word in tokens[at + 3 :]:
                if word.text == "]":
                    break
                if word.kind == "string":
                    yield token.text, word
        elif (token.kind, sign.text, other.kind) == ("string", "in", "name"):
            yield other.text, token
