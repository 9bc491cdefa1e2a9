"""Facts that were not logged with decisions, as a reader of a report is told of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from training.policy_log import Unlogged
from training.wording import count, listed


def sentences(unlogged: Iterable[Unlogged]) -> Iterator[str]:
    """What a reader should keep in mind: facts that the same decisions lack in one sentence.

    >>> print(*sentences([Unlogged("order_held_minor", ("again",), 2, 2)]))
    order_held_minor was not logged with these decisions (2 of 2 that name an order): what again \
does on them cannot be told.
    """
    groups: dict[tuple[int, int], list[Unlogged]] = defaultdict(list)
    for one in unlogged:
        groups[one.absent, one.orders].append(one)
    for (absent, orders), each in groups.items():
        rules = [*dict.fromkeys(rule for one in each for rule in one.rules)]
        yield (
            f"{listed([one.fact for one in each])} {'was' if len(each) == 1 else 'were'} not "
            f"logged with these decisions ({count(absent)} of {count(orders)} that name an order): "
            f"what {listed(rules)} {'does' if len(rules) == 1 else 'do'} on them cannot be told."
        )
