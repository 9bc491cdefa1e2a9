"""A YAML text as plain values, with the line and column of each and every slip in the writing.

PyYAML's own loader lets a repeated key win silently and forgets where a value stood.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Slip:
    """Something wrong with the YAML itself, at `path`."""

    path: Path
    message: str
    value: str
    expected: str


@dataclass(slots=True)
class Source:
    """What a YAML text says (`value`), where (`marks`: line and column from 1), and its slips.

    >>> source = Source.read("rules:\\n- id: a\\n  id: b\\n")
    >>> source.value, source.marks["rules", 0, "id"]
    ({'rules': [{'id': 'a'}]}, (2, 7))
    >>> source.slips
    [Slip(path=('rules', 0, 'id'), message='key given twice', value='id', expected='one')]
    """

    value: Any = None
    marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    slips: list[Slip] = field(default_factory=list)

    @classmethod
    def read(cls, text: str) -> Source:
        """Read one YAML document; never raises: what cannot be read is a slip."""
        source = cls()
        loader = None
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is not None:
                source.value = source._build(loader, node, (), set())
        except yaml.MarkedYAMLError as error:
            if error.problem_mark:
                source.marks[()] = (error.problem_mark.line + 1, error.problem_mark.column + 1)
            source._slip((), "not YAML", error.problem or "", "a YAML document")
        except yaml.YAMLError as error:
            source._slip((), "not YAML", str(error), "a YAML document")
        except RecursionError:
            source._slip((), "nested too deeply", "", "a policy document")
        finally:
            if loader is not None:
                loader.dispose()
        return source

    def mark(self, path: Path) -> tuple[int, int] | None:
        """Return the place of `path`, or of the nearest thing around it that has one."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.marks:
                return self.marks[path[:length]]
        return None

    def _slip(self, path: Path, message: str, value: str, expected: str) -> None:
        self.slips.append(Slip(path, message, value, expected))

    def _build(self, loader: yaml.SafeLoader, node: yaml.Node, path: Path, seen: set[int]) -> Any:
        self.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if id(node) in seen:  # an alias is the very same node: refused, so nothing can explode
            self._slip(path, "an alias", "", "the value written out")
            return None
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path, seen)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(loader, n, (*path, i), seen) for i, n in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._slip(path, "cannot be read", str(node.value)[:80], "a plain YAML value")
            return None

    def _mapping(
        self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: Path, seen: set[int]
    ) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                self._slip(path, "a key that is not a plain name", "", "a plain name")
                continue
            value = self._build(loader, value_node, (*path, key), seen)
            if key in built:
                self._slip((*path, key), "key given twice", key, "one")
                continue
            built[key] = value
        return built
