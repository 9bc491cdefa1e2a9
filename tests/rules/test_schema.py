"""The JSON Schema for editors: published as it is, and in agreement with the loader."""

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from features.events import ENTITIES
from rules.decision import Mode
from rules.document import Band, Document, Entity, Examples, Limit, Rule, Suggestion
from rules.policy import Policy, PolicyError
from rules.schema import json_schema
from serving.facts import FACTS, MEANING

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema(FACTS, {name: meaning.says for name, meaning in MEANING.items()})
VALIDATOR = Draft202012Validator(SCHEMA)
SOUND = {
    "version": "1",
    "lists": {"block": ["device"], "allow": []},
    "limits": [
        {"id": "a_day", "version": 1, "by": "customer", "days": 1, "at_most": 5,
         "action": "MANUAL_REVIEW", "follow_up": {"code": "STEP_UP_VERIFICATION"}},
    ],
    "exploration": {"share": 0.05, "max_amount_minor": 1000},
    "bands": [{"action": "PREVENT", "probability_at_least": 0.9,
               "follow_up": {"code": "STORE_CREDIT"}}],
    "rules": [
        {"id": "a", "version": 1, "mode": "shadow", "stage": "hard", "when": "final_sale",
         "action": "PREVENT", "reason": "A", "description": "d",
         "follow_up": {"code": "PARTIAL_AMOUNT", "amount_minor": "amount_minor"},
         "examples": {"hit": [{"final_sale": True}], "miss": [{"final_sale": False}],
                      "unknown": [{"final_sale": None}, {}]}},
    ],
}  # fmt: skip


def test_the_published_schema_is_that_of_the_code():
    """`recourse policy schema > docs/policy.schema.json` writes it anew."""
    published = (ROOT / "docs" / "policy.schema.json").read_text(encoding="utf-8")
    assert json.loads(published) == SCHEMA


def test_the_schema_is_one_and_the_default_policy_fits_it():
    Draft202012Validator.check_schema(SCHEMA)
    default = (ROOT / "rules" / "policies" / "default.yaml").read_text(encoding="utf-8")
    VALIDATOR.validate(yaml.safe_load(default))


def test_every_key_is_described():
    def keys(part, path=()):
        for name, held in part.get("properties", {}).items():
            yield (*path, name), held

    described = [SCHEMA, *SCHEMA["$defs"].values()]
    silent = [name for part in described for name, held in keys(part) if "description" not in held]
    assert silent == []
    when = SCHEMA["$defs"]["Rule"]["properties"]["when"]
    assert (when["type"], "enum" in when, "CEL" in when["description"]) == ("string", False, True)


CHANGES = [
    ({}, True),
    ({"version": 1}, False),
    ({"fallback": "REVIEW"}, False),
    ({"fallback": "ALLOW"}, True),
    ({"rate_limited": "PREVENT"}, False),
    ({"lists": {"block": ["card"]}}, False),
    ({"exploration": {"share": 0, "max_amount_minor": 1}}, False),
    ({"bands": [{"action": "PREVENT"}]}, False),
    ({"bands": [{"action": "PREVENT", "expected_loss_minor_at_least": 1}]}, True),
    ({"bands": [{**SOUND["bands"][0], "follow_up": {"code": "PARTIAL_AMOUNT"}}]}, False),
    ({"limits": [{**SOUND["limits"][0], "days": 14}]}, False),
    ({"limits": [{**SOUND["limits"][0], "at_most": 1.5}]}, False),
    ({"rules": [{**SOUND["rules"][0], "stage": "limit"}]}, False),
    ({"rules": [{**SOUND["rules"][0], "id": "A"}]}, False),
    ({"rules": [{**SOUND["rules"][0], "follow_up": {"code": "PARTIAL_AMOUNT"}}]}, False),
    ({"rules": [{**SOUND["rules"][0], "follow_up": {"code": "STORE_CREDIT",
                                                    "amount_minor": "amount_minor"}}]}, False),
    ({"rules": [{**SOUND["rules"][0], "examples": {"hit": [], "miss": []}}]}, False),
    ({"rules": [{**SOUND["rules"][0], "examples": {"hit": [{"final_sale": 1}],
                                                   "miss": [{"final_sale": False}]}}]}, False),
    ({"rules": [{**SOUND["rules"][0], "examples": {"hit": [{"finalsale": True}],
                                                   "miss": [{"final_sale": False}]}}]}, False),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sound"), CHANGES)
def test_schema_and_loader_agree(changes, sound):
    document = SOUND | changes
    assert VALIDATOR.is_valid(document) is sound
    try:
        Policy.from_yaml(json.dumps(document), facts=FACTS)
    except PolicyError:
        assert not sound
    else:
        assert sound


def test_entities_are_those_of_the_features():
    assert get_args(Entity) == ENTITIES


def test_defaults_never_change_their_meaning():
    """They are left out of the hash of a policy: another default would rewrite old decisions."""
    plain = Document(version="1", bands=(), rules=())
    assert plain.digest() == "0faf824f6f59e2087bdfa059d3fff6dfebf90fe4d9afc908ca8a22fd0b3393ae"
    assert json.loads(plain.model_dump_json()) == {
        "version": "1",
        "note": None,
        "author": None,
        "orders_complete": False,
        "fallback": "MANUAL_REVIEW",
        "lists": {"block": list(ENTITIES), "allow": list(ENTITIES)},
        "limits": [],
        "costs": {
            "fee_minor": 0.0,
            "review_minor": 0.0,
            "prevented_honest_multiple": 1.0,
            "reviews_per_day": None,
        },
        "exploration": None,
        "bands": [],
        "rules": [],
    }
    parts = (Rule, Limit, Band, Suggestion, Examples)
    assert {
        f"{part.__name__}.{name}": field.default
        for part in parts
        for name, field in part.model_fields.items()
        if not field.is_required() and field.default is not None
    } == {
        "Rule.mode": Mode.LIVE,
        "Limit.mode": Mode.LIVE,
        "Limit.on_unknown": "miss",
        "Limit.reason": "REFUND_LIMIT",
        "Examples.unknown": (),
    }
