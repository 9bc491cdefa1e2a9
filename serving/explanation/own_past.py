"""What a customer's earlier refund requests looked like: feature rows, each as of its own time."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.catalog import MODEL_FEATURES, PLAN
from features.engine import Past
from features.events import RefundRequest
from features.kernels import FloatArray
from features.money import Rates
from serving.desk import READS
from serving.scorer import feature_row, keys_of
from serving.store.belonging import belonging
from serving.store.decisions import Decision
from serving.store.store import Store

_PLACES: Final = np.array([PLAN.place_of[feature.name] for feature in MODEL_FEATURES])


def own_past(store: Store, decision: Decision, rates: Rates, most: int = 20) -> FloatArray:
    """The model's features (k, n) of the customer's requests before a decision, the oldest first.

    Of each refund its first request, as of its own cutoff, with what the store knows of that time;
    the latest ``most`` of them, and not that of the refund decided. NaN where unknown.
    """
    keys, cutoff = decision.record["keys"], decision.record["cutoff"]
    history, database = store.history, store.database
    rows = [np.empty((0, len(_PLACES)))]
    with database.read() as connection:
        pairs = (("customer", "refund_request"),)
        asked = belonging(database, connection, keys, pairs, cutoff, most + 1)
        before = [
            event for event in asked
            if event.known_at < cutoff and event.payload["refund_id"] != decision.refund_id
        ]  # fmt: skip
        for event in before[-most:]:
            request = RefundRequest.as_checked(event.payload)
            slices = history.read(connection, {}, request.known_at, READS, keys_of(request))
            past = Past(slices.rows, slices.pseudonyms, slices.first_seen)
            rows.append(feature_row(request, past, rates).numbers[np.newaxis, _PLACES])
    return np.concatenate(rows)
