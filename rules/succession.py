"""What keeps one policy from following another: a name that was used, for something else.

A version of the policy, of a rule or of a limit stands for one content: other content needs a
version of its own, and those of rules and limits rise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rules.document import Document, Limit, Rule
from rules.policy import Policy
from rules.problems import Findings, Problem
from rules.source import Path, Source


class Named(NamedTuple):
    """A rule or limit of a policy: its version, and the digest of all else that it says."""

    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Outline:
    """What of a policy its successors are held to; `named` has its rules and limits by id."""

    version: str
    hash: str
    named: Mapping[str, Named]

    @classmethod
    def of(cls, document: Document) -> Outline:
        """Outline a document, whatever facts its conditions read."""
        written: tuple[Rule | Limit, ...] = (*document.rules, *document.limits)
        named = {part.id: Named(part.version, _digest(part)) for part in written}
        return cls(document.version, document.digest(), named)


def _digest(part: Rule | Limit) -> str:
    """A hash of what a rule or limit says beside its version; 1 and 1.0 are the same."""
    content = json.loads(part.model_dump_json(exclude={"version"}), parse_int=float)
    canonical = json.dumps([type(part).__name__, content], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Misstep:
    """Why a policy cannot follow; `is_reuse` where it is one version with other content."""

    path: Path
    message: str
    value: str
    expected: str
    nearest: str | None = None
    is_reuse: bool = True


def missteps(before: Outline, after: Policy) -> Iterator[Misstep]:
    """Yield what keeps `after` from succeeding `before`, each at its place in the document."""
    if after.version == before.version and after.hash != before.hash:
        message = "this version is in use with other content"
        yield Misstep(("version",), message, repr(after.version), "a version of its own")
    for key in ("rules", "limits"):
        parts: tuple[Rule | Limit, ...] = getattr(after.document, key)
        for i, part in enumerate(parts):
            if (was := before.named.get(part.id)) is not None:
                yield from _steps((key, i, "version"), was, part)


def _steps(path: Path, was: Named, part: Rule | Limit) -> Iterator[Misstep]:
    if part.version > was.version:
        return
    least = was.version + (0 if _digest(part) == was.digest else 1)
    if part.version < least:
        fell = part.version < was.version
        message = f"fell from {was.version}" if fell else "did not rise with the change"
        expected = f"{least} or more"
        yield Misstep(path, message, str(part.version), expected, str(least), is_reuse=not fell)


def placed(steps: Iterable[Misstep], text: str) -> tuple[Problem, ...]:
    """Find missteps in the text of the policy that made them, those at one place once."""
    first: dict[Path, Misstep] = {}
    for step in steps:
        first.setdefault(step.path, step)
    if not first:
        return ()
    findings = Findings(Source.read(text))
    for step in first.values():
        findings.add(step.path, step.message, step.value, step.expected, step.nearest)
    return tuple(findings.problems)


def succession_problems(before: Policy, after: Policy) -> tuple[Problem, ...]:
    """Find what keeps `after` from succeeding `before`, each at its place in `after.text`.

    >>> text = "{version: '1', fallback: ALLOW, bands: [], rules: []}"
    >>> before = Policy.from_yaml(text, facts={})
    >>> after = Policy.from_yaml(text.replace("ALLOW", "PREVENT"), facts={})
    >>> [problem.found for problem in succession_problems(before, after)]
    ["this version is in use with other content, got '1'"]
    """
    return placed(missteps(Outline.of(before.document), after), after.text)
