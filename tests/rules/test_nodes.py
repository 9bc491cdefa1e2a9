"""Reading YAML fast: every text is read as PyYAML reads it, value for value and place for place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from rules import nodes
from rules.nodes import node_of
from rules.source import Source

DEFAULT = Path(nodes.__file__).parent / "policies" / "default.yaml"


def told(node: yaml.Node | None) -> Iterator[tuple[Any, ...]]:
    """All that is read of a text from here on: kinds, tags, values, styles, and places."""
    if node is None:
        return
    style = getattr(node, "style", None) or None
    value = node.value if isinstance(node, yaml.ScalarNode) else len(node.value)
    yield node.tag, style, value, node.start_mark.index, node.end_mark.index
    for part in node.value if not isinstance(node, yaml.ScalarNode) else ():
        for one in part if isinstance(part, tuple) else (part,):
            yield from told(one)


def outcome(read: Any, text: str) -> Any:
    try:
        return list(told(read(text)))
    except yaml.YAMLError as error:
        return str(error)
    except RecursionError:  # an alias of what it lies in
        return "without end"


def slowly(text: str) -> yaml.Node | None:
    return yaml.SafeLoader(text).get_single_node()


def alike(text: str) -> None:
    assert outcome(node_of, text) == outcome(slowly, text)


@pytest.mark.parametrize("turn", [str, lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t])
def test_the_default_policy_is_read_alike(turn):
    alike(turn(DEFAULT.read_text(encoding="utf-8")))


@pytest.mark.skipif(not nodes.HAS_LIBYAML, reason="PyYAML was built without libyaml")
def test_the_default_policy_is_read_fast(monkeypatch):
    monkeypatch.delattr(yaml, "SafeLoader")
    assert node_of(DEFAULT.read_text(encoding="utf-8")) is not None


WHOLE = [
    "a: b\n", "- a: 'it''s'\n  b: |\n    t\n\n", '{a: [1, 2], b: "q\\x41"}\n', "--- a: 1\n...\n",
    "%YAML 1.1\n---\n", "x: &x 1\ny: *x\n", "? a\n: - b\n  - !!str 3\n", "c: \n", "- >-\n   é\n d",
]  # fmt: skip
PARTS = [
    *" \n\t:-{}[],'\"|>&*!%#?@`\\~=é1.\r",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "\0",
    "- ",
    ": ",
]
PIECES = st.sampled_from(WHOLE) | st.sampled_from(PARTS)


@given(st.lists(PIECES, max_size=8).map("".join))
@example("a:\tb\n")
@example("a: !\n")
@example("{a: 1?}")
@example("- |#\n  t\n")
@example("{a: 1, b: }\n")
@example("a: b: c\n")
@example("a: 1\n--- \nb: 2\n")
def test_any_text_is_read_alike(text):
    alike(text)


@pytest.mark.parametrize("mark", ["[", "- ", "{a: ", "? ", "[a, "])
def test_what_is_nested_without_end_is_a_slip_and_no_crash(mark):
    (slip,) = Source.read(mark * (400_000 // len(mark))).slips
    assert slip.message == "nested too deeply"


def test_without_libyaml_all_is_read_by_pyyaml(monkeypatch):
    monkeypatch.setattr(nodes, "HAS_LIBYAML", False)
    alike(DEFAULT.read_text(encoding="utf-8"))
