"""YAML nodes: read by libyaml where it reads exactly as PyYAML does, and else by PyYAML.

PyYAML takes most of a second for 500 rules, in which a worker decides more slowly. libyaml gives
only the events: the composer that comes with it recurses without a bound, and crashes.
"""

from __future__ import annotations

import re

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

# What libyaml reads otherwise: tabs, byte order marks, and half a surrogate pair.
_OTHERWISE = re.compile("[\t\ufeff\ud800-\udfff]")
_COMMENTED = re.compile("[|>][-+0-9]*#")


try:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]
except ImportError:  # PyYAML was built without libyaml
    HAS_LIBYAML = False
else:
    HAS_LIBYAML = True

    class _Libyaml(Composer, CParser, Resolver):
        """PyYAML's composer over libyaml's events."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            Resolver.__init__(self)


def node_of(text: str) -> yaml.Node | None:
    """Return the root of a text's one document, None where it holds none.

    Raises:
        yaml.YAMLError: the text is no YAML, in PyYAML's words.
        RecursionError: it is nested too deeply.

    >>> [value.value for _, value in node_of("{a: 1, b: x}").value]
    ['1', 'x']
    """
    if HAS_LIBYAML and not _OTHERWISE.search(text):
        try:
            node = _single(_Libyaml(text))
            if node is None or _is_told_alike(node, text):
                return node
        except yaml.YAMLError:
            pass  # what is wrong, and where, is told by PyYAML
    return _single(yaml.SafeLoader(text))


def _single(loader: yaml.SafeLoader | _Libyaml) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _is_told_alike(root: yaml.Node, text: str) -> bool:
    """Whether both read every node of this text so, and find it in the same place.

    They may not agree on tags, values left out, plain values with a question mark, and comments
    that follow a block's mark at once.
    """
    left = [root]
    while left:
        node = left.pop()
        start = node.start_mark.index
        if text[start : start + 1] in ("!", "&"):
            return False
        if isinstance(node, yaml.MappingNode):
            left += (one for pair in node.value for one in pair)
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.ScalarNode):
            if node.style in ("|", ">"):
                if _COMMENTED.match(text, start):
                    return False
            elif not node.style and (not node.value or "?" in node.value):
                return False
    return True
