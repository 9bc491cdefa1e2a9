"""Every page of the console, in the order in which they are looked through."""

from __future__ import annotations

from typing import Final

from serving.console import (
    accounts,
    audit,
    backtests,
    case,
    customer,
    dashboards,
    entering,
    lists,
    policies,
    queue,
    search,
)
from serving.console.visit import Page

PAGES: Final[tuple[Page, ...]] = (
    *entering.CALLS, *queue.CALLS, *case.CALLS, *search.CALLS, *customer.CALLS, *accounts.CALLS,
    *audit.CALLS, *policies.CALLS, *backtests.CALLS, *lists.CALLS, *dashboards.CALLS,
)  # fmt: skip
