"""A payment provider over HTTP, in this process, that misbehaves as it is told."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from chassis.money import Money
from payment_svc.entrypoints.webhooks import PATH, SIGNATURE, sign

API_KEY, SECRET = "sk_test", "whsec_of_the_test_firm"
KINDS = {"captures": "CAPTURE", "voids": "VOID", "refunds": "REFUND"}

# Of a call: nothing done and an error, or no answer; done, and the answer cut off, late, garbled, or about another key.
UNDONE = ("500", "429", "unheard")
DONE = ("dropped", "slow", "garbled", "mistaken", "500 after")


@dataclass(slots=True)
class Move:
    payment_id: str
    kind: str
    amount: Money
    status: str
    reference: str
    reason: str = ""


class Firm:
    """`fate` says what befalls a call, by its method and key: "" or one of UNDONE, DONE, "pending".

    It does a key once, unless it is `forgetful`: then a key that is sent again is done again.
    """

    def __init__(self, *, patience: float):
        self.url = ""
        self.fate: Callable[[str, str], str] = lambda method, key: ""
        self.forgetful = False
        self.record: dict[str, Move] = {}
        self.moves: list[Move] = []
        self.calls: Counter[str] = Counter()
        self._late = 2 * patience

    def did(self) -> list[tuple[str, str, int, str]]:
        """What it did, as `books_agree` compares it."""
        return sorted((m.payment_id, m.kind, m.amount.nanos, m.amount.currency)
                      for m in self.moves if m.status == "approved")  # fmt: skip

    def decide(self, key: str) -> None:
        """Approve what is pending."""
        self.record[key].status = "approved"

    async def notify(self, address: str, key: str, *, id: str = "", at: int, secret: str = SECRET, **more: Any) -> int:
        """Send a webhook, and return the HTTP status of the answer."""
        body = json.dumps({"id": id or str(uuid4()), "key": key, **more}).encode()
        return await post(address, body, sign(secret, body, at))

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return web.json_response({"error": "who are you?"}, status=401)
        if request.method == "GET":
            key = request.match_info["key"]
            return await self._answer(request, key, self.fate("GET", key))
        key, asked = request.headers["Idempotency-Key"], await request.json()
        fate = self.fate("POST", key)
        self.calls[key] += 1
        if fate not in UNDONE and (self.forgetful or key not in self.record):
            kind = KINDS.get(request.match_info.get("what", ""), "AUTHORIZE")
            self._move(key, kind, asked, request.match_info.get("reference", ""), pending=fate == "pending")
        return await self._answer(request, key, fate)

    def _move(self, key: str, kind: str, asked: dict[str, str], reference: str, *, pending: bool) -> None:
        amount = Money.parse(asked["currency"], asked["amount"])
        history = [m for m in self.moves if m.payment_id == asked["payment_id"] and m.status == "approved"]
        sums = Counter({k: sum(m.amount.nanos for m in history if m.kind == k) for k in {m.kind for m in history}})
        fine = {
            "AUTHORIZE": asked.get("token") != "tok_declined",
            "CAPTURE": amount.nanos <= sums["AUTHORIZE"] - sums["VOID"],
            "VOID": "AUTHORIZE" in sums and "CAPTURE" not in sums,
            "REFUND": amount.nanos <= sums["CAPTURE"] - (0 if self.forgetful else sums["REFUND"]),
        }[kind]
        assert kind == "AUTHORIZE" or any(m.reference == reference for m in history)
        status = "pending" if pending else "approved" if fine else "declined"
        move = Move(asked["payment_id"], kind, amount, status, f"op_{uuid4()}", "" if fine else "the bank said no")
        self.record[key] = move
        self.moves.append(move)

    async def _answer(self, request: web.Request, key: str, fate: str) -> web.StreamResponse:
        if fate in ("unheard", "dropped"):
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if fate == "slow":
            await asyncio.sleep(self._late)
        if fate in ("500", "500 after", "429"):
            return web.json_response({"key": key, "status": "declined"}, status=int(fate.split()[0]))
        if fate == "garbled":
            return web.Response(text="<html>we'll be back")
        if (move := self.record.get(key)) is None:
            return web.json_response({"key": key, "error": "not found"}, status=404)
        amount, currency = str(move.amount).split()
        return web.json_response(
            {
                "key": "another" if fate == "mistaken" else key,
                "status": move.status,
                "amount": amount,
                "currency": currency,
                "reference": move.reference,
                "reason": move.reason,
            },
            status=402 if move.status == "declined" else 200,
        )


def once(*fates: str) -> Callable[[str, str], str]:
    """Each key's first calls meet these fates, its later ones none."""
    seen: Counter[tuple[str, str]] = Counter()

    def fate(method: str, key: str) -> str:
        if method == "GET":
            return ""
        seen[method, key] += 1
        return fates[seen[method, key] - 1] if seen[method, key] <= len(fates) else ""

    return fate


def moody(dice: random.Random) -> Callable[[str, str], str]:
    """Half of all calls go wrong, in any way."""
    return lambda method, key: dice.choice(UNDONE + DONE) if dice.random() < 0.5 else ""


async def post(address: str, body: bytes, signature: str | None) -> int:
    headers = {} if signature is None else {SIGNATURE: signature}
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"http://{address}{PATH}", data=body, headers=headers) as answer,
    ):
        return answer.status


@asynccontextmanager
async def open_firm(*, patience: float) -> AsyncIterator[Firm]:
    """A firm that listens; its late answers come when a caller of so much patience is gone."""
    firm = Firm(patience=patience)
    app = web.Application()
    app.router.add_post("/v1/authorizations", firm._begin)
    app.router.add_post("/v1/authorizations/{reference}/{what}", firm._begin)
    app.router.add_get("/v1/operations/{key}", firm._begin)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    firm.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield firm
    await runner.cleanup()
