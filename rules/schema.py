"""The JSON Schema of the policy, for editors: keys, choices, and a sentence on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rules.clauses import counted_windows
from rules.document import Document
from rules.policy import DECISION_FACTS

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "double": {"type": ["number", "null"]},
    "string": {"type": ["string", "null"]},
    "bool": {"type": ["boolean", "null"]},
    "strings": {"type": ["array", "null"], "items": {"type": "string"}},
}


def json_schema(facts: Mapping[str, str], says: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Describe the policy document over the given facts (name -> kind, as `Policy.from_yaml`).

    `says` has a sentence for each fact, shown where an example gives a value to it.

    What the schema refuses is refused at load too; the loader knows more: types within conditions,
    failing examples, ids given twice, the order of bands.

    >>> schema = json_schema({"final_sale": "bool"}, {"final_sale": "sold for good"})
    >>> schema["properties"]["fallback"]["description"]
    'What is answered where there is no score: no model, or too late.'
    >>> schema["$defs"]["Example"]["properties"]["final_sale"]
    {'type': ['boolean', 'null'], 'description': 'sold for good'}
    """
    schema = _tidied(Document.model_json_schema())
    parts = schema["$defs"]
    parts["Example"] = _example({**facts, **DECISION_FACTS}, says or {})
    for outcome in parts["Examples"]["properties"].values():
        outcome["items"] = {"$ref": "#/$defs/Example"}
    thresholds = ("probability_at_least", "expected_loss_minor_at_least")
    parts["Band"]["anyOf"] = [{"required": [threshold]} for threshold in thresholds]
    parts["Suggestion"]["if"] = {"properties": {"code": {"const": "PARTIAL_AMOUNT"}}}
    parts["Suggestion"]["then"] = {"required": ["amount_minor"]}
    parts["Suggestion"]["else"] = {"properties": {"amount_minor": {"type": "null"}}}
    windows = sorted({days for counted in counted_windows(facts).values() for days in counted})
    if windows:
        parts["Limit"]["properties"]["days"]["enum"] = windows
    return {"$schema": _DIALECT, "title": "Recourse policy", **schema}


def _example(kinds: Mapping[str, str], says: Mapping[str, str]) -> dict[str, Any]:
    properties = {}
    for name, kind in sorted(kinds.items()):
        described = {"description": says[name]} if name in says else {}
        properties[name] = {**_TYPES[kind], **described}
    return {
        "description": "Facts by name; one that is left out, or null, is unknown.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _tidied(part: Any) -> Any:
    """Leave out titles, which repeat the keys, and write descriptions on one line."""
    if isinstance(part, list):
        return [_tidied(one) for one in part]
    if not isinstance(part, dict):
        return part
    tidied = {key: _tidied(value) for key, value in part.items()}
    if isinstance(tidied.get("title"), str):
        del tidied["title"]
    if isinstance(tidied.get("description"), str):
        tidied["description"] = " ".join(tidied["description"].split())
    return tidied
