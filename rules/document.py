"""The policy as it is written: the keys of the YAML document, their types and ranges."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rules.decision import Action, FollowUpCode, Mode, Stage

_Share = Annotated[float, Field(ge=0, le=1)]
_Minor = Annotated[float, Field(ge=0)]
_RuleAction = Literal[Action.MANUAL_REVIEW, Action.PREVENT]
_PlainAction = Literal[Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT]
#: What a list entry names and a limit counts by; the same as `features.events.ENTITIES`.
Entity = Literal["customer", "device", "payment_method", "address", "ip", "email"]
_Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Reason = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
_Description = Annotated[str, Field(min_length=1, max_length=300)]
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


class Suggestion(Part):
    """What the backend may offer beside a hold or a refusal.

    `amount_minor` is a condition's text whose value is a double; PARTIAL_AMOUNT needs it, and it
    means nothing elsewhere.
    """

    code: FollowUpCode
    amount_minor: Annotated[str, Field(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _has_an_amount_where_it_needs_one(self) -> Suggestion:
        if (self.code is FollowUpCode.PARTIAL_AMOUNT) != (self.amount_minor is not None):
            raise ValueError("amount_minor with PARTIAL_AMOUNT, and with no other code")
        return self


class Advice(Part):
    """What the backend may offer beside what a band does: never an amount."""

    code: Literal[
        FollowUpCode.STORE_CREDIT, FollowUpCode.WAIT_FOR_RETURN, FollowUpCode.STEP_UP_VERIFICATION
    ]


class Lists(Part):
    """Which entities' entries count, on the block list and on the allow list."""

    block: tuple[Entity, ...] = get_args(Entity)
    allow: tuple[Entity, ...] = get_args(Entity)


class Band(Part):
    """Scores that reach every threshold given here call for the action; below all bands, ALLOW."""

    action: _RuleAction
    probability_at_least: _Share | None = None
    expected_loss_minor_at_least: _Minor | None = None
    follow_up: Advice | None = None

    @model_validator(mode="after")
    def _has_a_threshold(self) -> Band:
        if self.probability_at_least is None and self.expected_loss_minor_at_least is None:
            raise ValueError("probability_at_least, expected_loss_minor_at_least or both")
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

    id: _Id
    version: Annotated[int, Field(ge=1)]
    mode: Mode = Mode.LIVE
    stage: Literal[Stage.HARD, Stage.RISK]
    requires: Literal["orders_complete"] | None = None
    when: Annotated[str, Field(max_length=2000)]
    on_unknown: Literal["miss", "review"] | None = None
    action: _RuleAction
    reason: _Reason
    description: _Description
    follow_up: Suggestion | None = None
    examples: Examples

    @property
    def reviews_unknown(self) -> bool:
        """Whether an unsettled condition calls for review: by default for hard rules alone."""
        return (self.on_unknown or ("review" if self.stage is Stage.HARD else "miss")) == "review"


class Limit(Part):
    """How many refunds one entity may ask for within a window, and what happens to the next.

    With `at_most: 5` the sixth passes the limit: five earlier requests lie in its window.
    """

    id: _Id
    version: Annotated[int, Field(ge=1)]
    mode: Mode = Mode.LIVE
    by: Entity
    days: Annotated[int, Field(ge=1)]
    at_most: Annotated[int, Field(ge=0)]
    action: _RuleAction
    on_unknown: Literal["miss", "review"] = "miss"
    reason: _Reason = "REFUND_LIMIT"
    description: _Description | None = None
    follow_up: Suggestion | None = None

    @property
    def fact(self) -> str:
        """The name of the count that is limited."""
        return f"refund_count_by_{self.by}_{self.days}d"

    @property
    def when(self) -> str:
        """The limit as a condition."""
        return f"{self.fact} >= {self.at_most}.0"

    @property
    def told(self) -> str:
        """The description, made from the numbers where none is given.

        >>> numbers = {"by": "payment_method", "days": 7, "at_most": 2}
        >>> Limit(id="a", version=1, action=Action.PREVENT, **numbers).told
        'More than 2 refund requests of one payment method within 7 days'
        """
        times = "1 day" if self.days == 1 else f"{self.days} days"
        plural = "" if self.at_most == 1 else "s"
        return self.description or (
            f"More than {self.at_most} refund request{plural} of one "
            f"{self.by.replace('_', ' ')} within {times}"
        )

    @property
    def reviews_unknown(self) -> bool:
        """Whether an unknown count calls for review."""
        return self.on_unknown == "review"


class Document(Part):
    """The policy as written."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    note: str | None = None
    author: str | None = None
    orders_complete: bool = False
    fallback: _PlainAction = Action.MANUAL_REVIEW
    lists: Lists = Lists()
    limits: Annotated[tuple[Limit, ...], Field(max_length=100)] = ()
    costs: Costs = Costs()
    exploration: Exploration | None = None
    bands: Annotated[tuple[Band, ...], Field(max_length=100)]
    rules: Annotated[tuple[Rule, ...], Field(max_length=500)]

    def digest(self) -> str:
        """Return the SHA-256 of the content: layout, comments and spelled-out defaults aside.

        Defaults are left out, so a key that is new in a later release moves no hash; in return
        what a default means may never change.
        """
        content = self.model_dump(mode="json", exclude_defaults=True)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
