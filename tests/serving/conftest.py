"""What the tests of serving share: a tiny trained champion, and the default policy over FACTS."""

from __future__ import annotations

from pathlib import Path

import pytest

import rules
from features.catalog import FEATURES
from rules.policy import Policy, load_policy
from serving.facts import FACTS
from serving.scorer import Champion
from tests.serving.champions import trained_model

DEFAULT_POLICY = Path(rules.__file__).parent / "policies" / "default.yaml"


@pytest.fixture(scope="session")
def champion() -> Champion:
    return Champion.of(trained_model(), "7")


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy(DEFAULT_POLICY, FACTS)


@pytest.fixture(scope="session")
def complete() -> Policy:
    """The default policy of a merchant who reports every order and capture."""
    text = DEFAULT_POLICY.read_text(encoding="utf-8")
    changed = text.replace("orders_complete: false", "orders_complete: true")
    assert changed != text
    return Policy.from_yaml(changed, facts=FACTS)


@pytest.fixture(scope="session")
def plain_row() -> dict[str, float]:
    """A feature row of a customer with a short and harmless past."""
    return {feature.name: 1.0 for feature in FEATURES}
