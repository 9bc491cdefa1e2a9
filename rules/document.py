"""The policy as it is written: the keys of the YAML document, their types and ranges."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rules.decision import Action, Mode, Stage

_Share = Annotated[float, Field(ge=0, le=1)]
_Minor = Annotated[float, Field(ge=0)]
_RuleAction = Literal[Action.MANUAL_REVIEW, Action.PREVENT]
_PlainAction = Literal[Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT]
_Example = dict[str, Any]  # checked against the kinds of the facts, which are known at load only


class Part(BaseModel):
    """What all parts of the document share: immutable, no unknown keys, no coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Costs(Part):
    """What mistakes and reviews cost, in minor units of the base currency.

    `prevented_honest_multiple` is the harm of preventing an honest refund, as a multiple of it.
    `reviews_per_day` is how many refunds the review desk can look at on a day, None where nobody
    said: training keeps the bands it proposes within it, decisions do not depend on it.
    """

    fee_minor: _Minor = 0.0
    review_minor: _Minor = 0.0
    prevented_honest_multiple: Annotated[float, Field(ge=0)] = 1.0
    reviews_per_day: Annotated[float, Field(ge=0)] | None = None

    def expected_loss_minor(self, probability: float, payable_minor: float) -> float:
        """Return the probability of abuse times what paying an abuser would lose.

        >>> Costs(fee_minor=500).expected_loss_minor(0.5, 2000)
        1250.0
        """
        return probability * (payable_minor + self.fee_minor)


class Exploration(Part):
    """A random-allow holdout: the share of held refunds up to an amount that is paid anyway."""

    share: Annotated[float, Field(gt=0, le=1)]
    max_amount_minor: _Minor


class Band(Part):
    """Scores that reach every threshold given here call for the action; below all bands, ALLOW."""

    action: _RuleAction
    probability_at_least: _Share | None = None
    expected_loss_minor_at_least: _Minor | None = None

    @model_validator(mode="after")
    def _has_a_threshold(self) -> Band:
        if self.probability_at_least is None and self.expected_loss_minor_at_least is None:
            raise ValueError("probability_at_least or expected_loss_minor_at_least")
        return self

    def covers(self, other: Band) -> bool:
        """Whether every score that reaches `other` reaches this band too."""
        return (self.probability_at_least or 0) <= (other.probability_at_least or 0) and (
            self.expected_loss_minor_at_least or 0
        ) <= (other.expected_loss_minor_at_least or 0)


class Examples(Part):
    """Facts on which the rule must hit, must miss, or must be left unsettled."""

    hit: Annotated[tuple[_Example, ...], Field(min_length=1)]
    miss: Annotated[tuple[_Example, ...], Field(min_length=1)]
    unknown: tuple[_Example, ...] = ()


class Rule(Part):
    """One rule as written. A rule never calls for ALLOW: it may hold a refund, not wave it on."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    version: Annotated[int, Field(ge=1)]
    mode: Mode = Mode.LIVE
    stage: Stage
    requires: Literal["orders_complete"] | None = None
    when: Annotated[str, Field(max_length=2000)]
    on_unknown: Literal["miss", "review"] | None = None
    action: _RuleAction
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
    description: Annotated[str, Field(min_length=1, max_length=300)]
    examples: Examples

    @property
    def reviews_unknown(self) -> bool:
        """Whether an unsettled condition calls for review: by default for hard rules alone."""
        return (self.on_unknown or ("review" if self.stage is Stage.HARD else "miss")) == "review"


class Document(Part):
    """The policy as written."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    note: str | None = None
    author: str | None = None
    orders_complete: bool = False
    fallback: _PlainAction = Action.MANUAL_REVIEW
    rate_limited: _RuleAction = Action.MANUAL_REVIEW
    costs: Costs = Costs()
    exploration: Exploration | None = None
    bands: tuple[Band, ...]
    rules: tuple[Rule, ...]

    def digest(self) -> str:
        """Return the SHA-256 of the content: layout, comments and spelled-out defaults aside."""
        content = self.model_dump(mode="json", exclude_none=True)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
