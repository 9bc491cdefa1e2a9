"""Every field that a warning asks for is one that the wire takes."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel

from serving.facts import FACTS
from serving.fields import FIELDS, fields_of
from serving.reports import RefundReport


def taken(path: str) -> bool:
    """Whether a path leads through the models of a refund's report to a field."""
    model: Any = RefundReport
    for step in path.replace("[]", "").split("."):
        fields = model.model_fields.values() if model else ()
        found = [field for field in fields if field.alias == step]
        if not found:
            return False
        model = next((m for m in parts(found[0].annotation) if issubclass(m, BaseModel)), None)
    return True


def parts(annotation: Any) -> list[type]:
    """The classes within an annotation."""
    inner = [one for argument in get_args(annotation) for one in parts(argument)]
    return [annotation, *inner] if isinstance(annotation, type) else inner


@pytest.mark.parametrize("fact", FIELDS)
def test_the_fields_of_a_fact_are_on_the_wire(fact: str) -> None:
    assert fact in FACTS
    for field in fields_of(fact):
        assert taken(field), field


def test_a_field_that_is_not_taken_is_found_out() -> None:
    assert not taken("order.deliveredTimes")
    assert not taken("refund.items[].refundReason.code")


@pytest.mark.parametrize(("fact", "field"), [
    ("refund_count_by_payment_method_1d", "paymentMethods[].paymentMethodId"),
    ("device_on_block_list", "device.deviceId"),
    ("ip_first_seen_age_days", "device.ipAddress"),
])  # fmt: skip
def test_what_history_knows_of_an_entity_waits_for_the_entity(fact: str, field: str) -> None:
    assert fields_of(fact) == (field,)
