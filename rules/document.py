"""The policy as it is written: the keys of the YAML document, their types, ranges and meaning.

What stands below a key is what an editor shows of it: `rules.schema` makes the JSON Schema of this.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rules.decision import Action, FollowUpCode, Mode, Stage

#: What a list entry names and a limit counts by; the same as `features.events.ENTITIES`.
Entity = Literal["customer", "device", "payment_method", "address", "ip", "email"]
#: CEL; its type is checked where the kinds of the facts are known, as are examples.
Cel = Annotated[str, Field(max_length=2000)]
Example = dict[str, Any]

_Share = Annotated[float, Field(ge=0, le=1)]
_Minor = Annotated[float, Field(ge=0)]
_RuleAction = Literal[Action.MANUAL_REVIEW, Action.PREVENT]
_PlainAction = Literal[Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT]
_Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Version = Annotated[int, Field(ge=1)]
_Reason = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
_Description = Annotated[str, Field(min_length=1, max_length=300)]
_OnUnknown = Literal["miss", "review"]


class Part(BaseModel):
    """What all parts of the document share: immutable, no unknown keys, no coercion."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Costs(Part):
    """What mistakes and reviews cost, in minor units of the base currency."""

    fee_minor: _Minor = 0.0
    """What paying an abuser loses beside the amount: fees, shipping, handling."""
    review_minor: _Minor = 0.0
    """What one manual review costs."""
    prevented_honest_multiple: Annotated[float, Field(ge=0)] = 1.0
    """The harm of preventing an honest refund, as a multiple of its amount."""
    reviews_per_day: Annotated[float, Field(ge=0)] | None = None
    """How many refunds the review desk can look at on a day. Training and reports keep within it;
    decisions do not depend on it."""

    def expected_loss_minor(self, probability: float, payable_minor: float) -> float:
        """Return the probability of abuse times what paying an abuser would lose.

        >>> Costs(fee_minor=500).expected_loss_minor(0.5, 2000)
        1250.0
        """
        return probability * (payable_minor + self.fee_minor)


class Exploration(Part):
    """A random-allow holdout: a share of held refunds is paid anyway, so that labels can teach."""

    share: Annotated[float, Field(gt=0, le=1)]
    """The share of held refunds that is paid: 0.05 pays one in twenty."""
    max_amount_minor: _Minor
    """Refunds above this amount, in minor units of the base currency, are never explored."""


class Suggestion(Part):
    """What the backend may offer beside a hold or a refusal. Advice: nothing acts on it."""

    code: FollowUpCode
    """What to offer: store credit, waiting for the return, step-up verification, or a part of the
    amount."""
    amount_minor: Cel | None = None
    """The amount of PARTIAL_AMOUNT, a CEL double in minor units of the request's currency. Offered
    where it is known, above 0 and below what is asked. No other code has an amount."""

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
    """What to offer: store credit, waiting for the return, or step-up verification."""


class Lists(Part):
    """Which entities' entries count. Conditions such as `device_on_block_list` read all of them."""

    block: tuple[Entity, ...] = get_args(Entity)
    """An entry of one of these on the block list prevents the refund. Default: all six."""
    allow: tuple[Entity, ...] = get_args(Entity)
    """An entry of one of these on the allow list lifts bands and risk rules, never hard rules or
    limits. Default: all six."""


class Band(Part):
    """Scores that reach every threshold given here call for the action; below all bands, ALLOW."""

    action: _RuleAction
    """What such a score calls for. Bands go from mild to severe."""
    probability_at_least: _Share | None = None
    """The calibrated probability of abuse, from 0 to 1."""
    expected_loss_minor_at_least: _Minor | None = None
    """The probability times what paying would lose, in minor units of the base currency."""
    follow_up: Advice | None = None
    """What to offer where this band decided and no rule has a follow-up of its own."""

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
    """Facts on which the rule must hit, must miss, or must be left unsettled: run at load."""

    hit: Annotated[tuple[Example, ...], Field(min_length=1, max_length=50)]
    """At least one set of facts on which the rule hits."""
    miss: Annotated[tuple[Example, ...], Field(min_length=1, max_length=50)]
    """At least one set of facts on which it misses; the edges of its numbers teach most."""
    unknown: Annotated[tuple[Example, ...], Field(max_length=50)] = ()
    """Facts that leave it open. A fact that is left out, or null, is unknown."""


class Rule(Part):
    """One rule as written. A rule never calls for ALLOW: it may hold a refund, not wave it on."""

    id: _Id
    """The permanent name of the rule: small letters, digits and _. Never used for another one."""
    version: _Version
    """Rises with any change of the rule."""
    mode: Mode = Mode.LIVE
    """live acts; shadow is evaluated and logged, and never acted on."""
    stage: Literal[Stage.HARD, Stage.RISK]
    """hard stands before lists and model: nothing lifts a PREVENT of it. risk stands beside the
    model's bands: the most severe of both decides, and an allow list lifts it."""
    requires: Literal["orders_complete"] | None = None
    """orders_complete: the rule is live only where the policy promises complete orders."""
    when: Cel
    """The condition, in CEL, over facts. Numbers are doubles: 3.0, not 3. Texts stand in quotes,
    and conditions that hold quotes on lines of their own after |-."""
    on_unknown: _OnUnknown | None = None
    """What a condition that cannot be settled counts as. Default: review for hard rules, miss for
    risk rules."""
    action: _RuleAction
    """What a hit calls for."""
    reason: _Reason
    """The code that the answer bears: capitals, digits and _."""
    description: _Description
    """One sentence for those who read the answer."""
    follow_up: Suggestion | None = None
    """What the backend may offer where this rule decided."""
    examples: Examples
    """Facts with their outcome. A policy whose examples fail is refused."""

    @property
    def reviews_unknown(self) -> bool:
        """Whether an unsettled condition calls for review: by default for hard rules alone."""
        return (self.on_unknown or ("review" if self.stage is Stage.HARD else "miss")) == "review"


class Limit(Part):
    """How many refunds one entity may ask for within a window, and what happens to the next.

    With `at_most: 5` the sixth passes the limit: five earlier requests lie in its window.
    """

    id: _Id
    """The permanent name of the limit; rules and limits share their names."""
    version: _Version
    """Rises with any change of the limit."""
    mode: Mode = Mode.LIVE
    """live acts; shadow is evaluated and logged, and never acted on."""
    by: Entity
    """Whose requests are counted."""
    days: Annotated[int, Field(ge=1)]
    """The window, one that the catalog counts refunds over: refund_count_by_{by}_{days}d."""
    at_most: Annotated[int, Field(ge=0)]
    """How many requests within the window are left alone, this one included."""
    action: _RuleAction
    """What the next one calls for."""
    on_unknown: _OnUnknown = "miss"
    """What counts where the request does not name the entity."""
    reason: _Reason = "REFUND_LIMIT"
    """The code that the answer bears. Default: REFUND_LIMIT."""
    description: _Description | None = None
    """One sentence for those who read the answer. Default: made from the numbers."""
    follow_up: Suggestion | None = None
    """What the backend may offer where this limit decided."""

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
    """A policy of Recourse: what turns facts and score into ALLOW, MANUAL_REVIEW or PREVENT."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """The name of this version, in quotes. A version that was used never changes: write a new
    one."""
    note: str | None = None
    """What is new in this version, and why."""
    author: str | None = None
    """Who wrote it."""
    orders_complete: bool = False
    """true once every order and capture is reported: then rules that require it are live."""
    fallback: _PlainAction = Action.MANUAL_REVIEW
    """What is answered where there is no score: no model, or too late."""
    lists: Lists = Lists()
    """Which entities count on the block list and on the allow list."""
    limits: Annotated[tuple[Limit, ...], Field(max_length=100)] = ()
    """How many refunds one entity may ask for within a window. Passing one is an action, never an
    error, and an allow list does not lift it."""
    costs: Costs = Costs()
    """What mistakes and reviews cost."""
    exploration: Exploration | None = None
    """A random share of held refunds is paid anyway, so that labels can teach. Default: none."""
    bands: Annotated[tuple[Band, ...], Field(max_length=100)]
    """From score to action, from mild to severe."""
    rules: Annotated[tuple[Rule, ...], Field(max_length=500)]
    """Conditions that hold or prevent a refund, whatever the score."""

    def digest(self) -> str:
        """Return the SHA-256 of the content: layout, comments and spelled-out defaults aside.

        Defaults are left out, so a key that is new in a later release moves no hash; in return
        what a default means may never change.
        """
        content = self.model_dump(mode="json", exclude_defaults=True)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
