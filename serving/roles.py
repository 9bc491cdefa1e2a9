"""The roles of people who use the console: what each may do, and which ranks higher."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Role: TypeAlias = Literal["viewer", "agent", "manager", "finance", "admin"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""Every role, the lowest first: a second approver's is to be higher than the first one's."""

Permission: TypeAlias = Literal[
    "read", "review", "assign", "reveal", "lists", "policies", "audit", "accounts"
]
"""read: every page, persons under pseudonyms; review: act on reviews, note, attach, take one for
oneself; assign: give reviews to others, and act on many at once; reveal: see original identifiers;
lists: put entities on lists; policies: propose them and put them in force; audit: read the audit
log; accounts: invite people, and say what they may."""

_AT_WORK: Final = frozenset[Role]({"agent", "manager", "finance", "admin"})
_LEADING: Final = frozenset[Role]({"manager", "admin"})
_ANSWERING: Final = frozenset[Role]({"manager", "finance", "admin"})

MAY: Final[dict[Permission, frozenset[Role]]] = {
    "read": frozenset(ROLES), "review": _AT_WORK, "assign": _LEADING, "reveal": _ANSWERING,
    "lists": _LEADING, "policies": _LEADING, "audit": _ANSWERING, "accounts": frozenset({"admin"}),
}  # fmt: skip
"""Which roles may do what."""


def may(role: Role, permission: Permission) -> bool:
    """Whether people of a role may do something.

    >>> may("viewer", "read"), may("viewer", "review"), may("finance", "accounts")
    (True, False, False)
    """
    return role in MAY[permission]


def rank_of(role: Role) -> int:
    """How high a role is.

    >>> rank_of("agent") < rank_of("manager") < rank_of("finance") < rank_of("admin")
    True
    """
    return ROLES.index(role)
