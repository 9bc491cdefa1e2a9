"""The demo: train on the sample, serve it, and ask for three decisions a person can follow.

``python -m training.demo --home DIR --port N``. The sample's history goes into the sandbox, whose
clock is the requests' own (``--clock event``), so that the sample's last week is "now". Every step
is a ``recourse`` command or an HTTP request that anybody can repeat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.money import DAY_MS
from features.tables import Tables, read_folder

REPOSITORY: Final = Path(__file__).resolve().parent.parent
SAMPLE: Final = REPOSITORY / "data" / "sample"
RECOURSE: Final = str(Path(sys.executable).with_name("recourse"))
START_SECONDS: Final = 60
LAST_DAYS: Final = 7

ADMIN: Final = "Demo Admin"

REFERENCE: Final = {
    "timestamp": 1512828988826,
    "customer": {"customerId": "abc-123-ZYZ"},
    "order": {"orderId": "abcde12345-ZXY"},
    "refund": {
        "refundId": "abc-123-GDFS", "refundRequestTime": 1636629706000, "status": "OPEN",
        "initiatedBy": "CUSTOMER", "type": "REFUND", "claim": "FULL",
        "policy": "TERMS_AND_CONDITIONS", "amount": 1000, "currency": "GBP",
        "nonRefundableAmount": 250, "issuedTo": "ORIGINAL_PAYMENT_METHOD",
        "items": [{
            "name": "Midi Dress", "quantity": 1, "price": 1000, "currency": "GBP",
            "sku": "1234AAB", "category": "Clothing", "subcategory": "Dresses",
            "brand": "Trendy Threads", "refundReason": "ITEM_NOT_RECEIVED",
        }],
    },
    "device": {"deviceId": "df020f51-5ebb-4901-82cf-96299225754b"},
}  # fmt: skip
"""The example request of the refund-abuse API that Recourse is compatible with."""


def main() -> None:
    """Run the demo, or end the service that an earlier one left running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--stop", action="store_true", help="end the service and do nothing else")
    asked = parser.parse_args()
    home = asked.home.resolve()
    if asked.stop:
        stop(home)
    else:
        run(home, asked.port)


def run(home: Path, port: int) -> None:
    """Train if nothing is served yet, import, serve, ask."""
    os.environ |= {"RECOURSE_HOME": str(home), "RECOURSE_CLOCK": "event"}
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    tables = read_folder(SAMPLE).tables
    steps: list[tuple[str, ...]] = []
    if not (home / "model" / "current").exists():
        steps.append(("train", "--data", str(SAMPLE), "--maturity-days", "30"))
    if not (home / "sandbox.db").exists():
        steps.append(("import", str(SAMPLE), "--mode", "test"))
    _run_side_by_side(steps)
    key = _finished(_started("keys", "create", "--mode", "test", "--scope", "score", "--scope",
                             "report", "--scope", "review")).strip()  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    pid = _serve(home, port, address)
    invitation = address + _invitation()
    honest, abuser = pick_cases(tables)
    print("\nDecisions; under each, what raises the risk and by how much (log-odds)", flush=True)
    cases = (
        ("the reference's example, a customer nobody knows", REFERENCE),
        ("an abuser of the sample's last week", request_of(tables, abuser)),
        ("an honest customer of the sample's last week", request_of(tables, honest)),
    )
    for title, body in cases:
        print(f"\n{title}", flush=True)
        decision = ask(address, key, body)
        _print_decision(decision)
        page = home / f"{decision['scoreId']}.html"
        page.write_bytes(explain(address, key, decision["scoreId"]))
        print(f"    explained in {page}")
    _print_how_to(home, address, key, pid, invitation)


def _run_side_by_side(steps: Sequence[tuple[str, ...]]) -> None:
    """Run commands at once, for neither needs the other, and show what each printed."""
    running = [(step, _started(*step)) for step in steps]
    for step, process in running:
        print(f"recourse {' '.join(step).replace(str(REPOSITORY) + os.sep, '')}", flush=True)
        print(textwrap.indent(_shortened(_finished(process)), "  "), flush=True)


def _started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([RECOURSE, *command], stdout=subprocess.PIPE, text=True)


def _finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    return output


def _shortened(text: str, most: int = 14) -> str:
    lines = text.rstrip().splitlines()
    more = [f"… and {len(lines) - most} more lines"] if len(lines) > most else []
    return "\n".join(lines[:most] + more)


# --- the service -----------------------------------------------------------------------------


def _serve(home: Path, port: int, address: str) -> int:
    """Start the service, left running when the demo ends; returns its process id once ready."""
    print(f"\nserving: recourse serve --port {port} --clock event", flush=True)
    with (home / "service.log").open("ab") as log:
        service = subprocess.Popen(
            [RECOURSE, "serve", "--port", str(port), "--clock", "event"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (home / "service.pid").write_text(f"{service.pid}\n", encoding="ascii")
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and service.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/readyz", timeout=2):
            return service.pid
        time.sleep(0.1)
    state = "ended" if service.poll() is not None else f"was not ready in {START_SECONDS} s"
    stop(home)
    sys.exit(f"the service {state}; its log is {home / 'service.log'}")


def stop(home: Path) -> None:
    """End the service that a demo in this home left running, if it still runs."""
    path = home / "service.pid"
    if not path.exists():
        return
    pid = int(path.read_text(encoding="ascii"))
    path.unlink()
    if not _is_ours(pid, home):
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        if not _is_ours(pid, home):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _is_ours(pid: int, home: Path) -> bool:
    """Whether this process is a service of this home: a number may have gone to another since."""
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return f"RECOURSE_HOME={home}".encode() in environment
    return False


def ask(address: str, key: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send one request to be scored; the answer's data."""
    request = urllib.request.Request(
        f"{address}/v2/refund?score=refundRequest",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"token {key}", "Content-Type": "application/json"},
    )
    return json.loads(_answer(request))["data"]  # type: ignore[no-any-return]


def explain(address: str, key: str, score_id: str) -> bytes:
    """The page that explains a decision."""
    return _answer(
        urllib.request.Request(
            f"{address}/v2/decision/{score_id}",
            headers={"Authorization": f"token {key}", "Accept": "text/html"},
        )
    )


def _answer(request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {error.read().decode()}")


# --- the cases -------------------------------------------------------------------------------


def pick_cases(tables: Tables) -> tuple[int, int]:
    """Rows of the last week's refund requests: an honest customer's and an abuser's.

    Told by the labels that the sample holds about their earlier refunds: the abuser is who was
    confirmed most often, the honest one orders most, was never confirmed nor disputed, and asks
    for a plain refund of an everyday amount: large ones, and those that wait for their goods, are
    held whoever asks.
    """
    requests = tables["refund_requests"]
    known_at = requests["known_at"].to_numpy()
    customers: list[str] = requests["customer_id"].to_pylist()
    types = requests["type"].to_pylist()
    amounts = requests["amount_minor"].to_numpy()
    refunds = dict(zip(requests["refund_id"].to_pylist(), customers, strict=True))
    confirmed: dict[str, int] = {}
    for label in tables["labels"].to_pylist():
        who = label["customer_id"] or refunds.get(label["refund_id"])
        if who is not None and label["label"] == "REFUND_ABUSE":
            confirmed[who] = confirmed.get(who, 0) + 1
    ordered_by = dict(zip(tables["orders"]["order_id"].to_pylist(),
                          tables["orders"]["customer_id"].to_pylist(), strict=True))  # fmt: skip
    orders: dict[str, int] = {}
    for who in ordered_by.values():
        orders[who] = orders.get(who, 0) + 1
    disputed = {dispute["customer_id"] or ordered_by.get(dispute["order_id"])
                for dispute in tables["disputes"].to_pylist()}  # fmt: skip
    asked: dict[str, int] = {}
    for who in customers:
        asked[who] = asked.get(who, 0) + 1
    of_an_order = requests["order_id"].is_valid().to_numpy()  # the wire contract asks for one
    late = known_at >= known_at.max() - LAST_DAYS * DAY_MS
    last_week = np.flatnonzero(late & of_an_order).tolist()
    abuser = max(last_week, key=lambda row: confirmed.get(customers[row], 0))
    honest = max(
        (row for row in last_week
         if not confirmed.get(customers[row]) and customers[row] not in disputed
         and types[row] == "REFUND" and amounts[row] <= np.median(amounts)),
        key=lambda row: orders.get(customers[row], 0) / (1 + 3 * asked[customers[row]]),
    )  # fmt: skip
    return honest, abuser


def request_of(tables: Tables, row: int) -> dict[str, Any]:
    """A row of refund_requests as the body that a refund backend would send."""
    fields = tables["refund_requests"].slice(row, 1).to_pylist()[0]

    def part(**names: str) -> dict[str, Any]:
        return {wire: fields[column] for wire, column in names.items()
                if fields[column] is not None}  # fmt: skip

    body: dict[str, Any] = {
        # At a tie the request comes first: it sees what was known before, not itself.
        "timestamp": fields["known_at"],
        "customer": part(customerId="customer_id", registrationTime="registered_at", email="email"),
        "order": part(orderId="order_id", orderTime="ordered_at", deliveredTime="delivered_at"),
        "refund": {
            **part(amount="amount_minor", currency="currency", initiatedBy="initiated_by",
                   nonRefundableAmount="non_refundable_minor", type="type", claim="claim",
                   policy="policy", issuedTo="issued_to", refundReason="reason",
                   refundId="refund_id"),
            "status": "OPEN",
            "items": [{"refundReason": fields["reason"], "quantity": fields["item_count"] or 1,
                       **part(finalSale="final_sale")}],
        },
        "device": part(deviceId="device_id", ipAddress="ip", ipRisk="ip_risk"),
    }  # fmt: skip
    if fields["payment_method_id"] is not None:
        body["paymentMethods"] = [{"paymentMethodId": fields["payment_method_id"]}]
    if not body["device"]:
        del body["device"]
    return body


# --- printing --------------------------------------------------------------------------------


def _print_decision(data: Mapping[str, Any]) -> None:
    score = f"score {data['score']} ({data['riskLevel']} risk)" if "score" in data else "no score"
    print(f"  {data['action']}, by {data['source']}; {score}")
    for reason in data["reasons"]:
        weight = f"  {reason['contribution']:+.2f}" if "contribution" in reason else ""
        print(f"    {reason['code']:<28} {reason['description']}{weight}")
    for rule in data["rules"]["triggered"]:
        if rule["state"] == "active":
            print(f"    rule {rule['ruleId']}: {rule['description']} -> {rule['action']}")
    for warning in data["warnings"]:
        print(f"    warning {warning['class']}: {warning['msg']}")


def _invitation() -> str:
    """The path at which the console's first administrator chooses a password.

    Of a demo that runs again it is the same person, who is invited once more.
    """
    is_there = ADMIN in _finished(_started("accounts", "list", "--mode", "test"))
    made = ("invite", ADMIN) if is_there else ("create", ADMIN, "--role", "admin")
    told = json.loads(_finished(_started("accounts", *made, "--mode", "test", "--json")))
    return str(told["address"])


def _print_how_to(home: Path, address: str, key: str, pid: int, invitation: str) -> None:
    print(f"""
The service stays up at {address} (process {pid}, log {home / "service.log"}). Try it:

  curl -s '{address}/v2/refund?score=refundRequest' \\
    -H 'Authorization: token {key}' -H 'Content-Type: application/json' \\
    -d @tests/contract/request-score.json

The console, for people: open this once, to choose a password and scan a code for an app
  {invitation}

Documentation: {address}/docs    End it: make demo-stop""")


if __name__ == "__main__":
    main()
