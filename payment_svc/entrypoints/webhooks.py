"""The provider's webhooks: a hint that something became of an operation, upon which the provider is asked by its key.

    POST /webhooks/provider
    Provider-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256 over "<t>.<body>">
    {"id": "evt_1", "key": "<the operation's idempotency key>"}

While the provider changes its secret it may send several v1. A webhook that is too old, or too far ahead, is refused;
within that time each id has its effect once. What else the body says is not believed: webhooks come late, twice and out
of order, and the record by key tells all.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from http import HTTPStatus
from time import time

import structlog
from aiohttp import web

from chassis.config import split_address
from chassis.errors import Unavailable
from chassis.service import CannotListen
from payment_svc.application.payments import hear_of
from payment_svc.application.ports import Payments

log = structlog.get_logger(__name__)

PATH = "/webhooks/provider"
SIGNATURE = "Provider-Signature"
TOLERANCE_SECONDS = 300
_LONGEST_TIME = 12
_MOST_BYTES = 64 * 1024
_DRAIN_SECONDS = 2.0


class Forged(Exception):
    """The signature is missing, wrong, or of another time."""


def sign(secret: str, body: bytes, at: int) -> str:
    """The header that goes with a body."""
    return f"t={at},v1={_mac(secret, at, body)}"


def verify(secret: str, header: str, body: bytes, now: float) -> None:
    """Raises Forged."""
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) <= _LONGEST_TIME):
        raise Forged("no single time")
    at = int(times[0])
    if abs(now - at) > TOLERANCE_SECONDS:
        raise Forged("another time")
    expected = _mac(secret, at, body).encode()
    if not any(
        hmac.compare_digest(value.encode(errors="surrogateescape"), expected)
        for name, _, value in parts
        if name == "v1"
    ):
        raise Forged("wrong signature")


def _mac(secret: str, at: int, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


class Webhooks:
    """Listens while it is open. `address` is where, once it does."""

    def __init__(self, address: str, *, secret: str, payments: Payments, clock: Callable[[], float] = time):
        self.address = address
        self._secret = secret
        self._payments = payments
        self._clock = clock
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Raises CannotListen."""
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_post(PATH, self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_DRAIN_SECONDS)
        await self._runner.setup()
        host, port = split_address(self.address)
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.close()
            reason = f"POLYMART_PROVIDER_WEBHOOK_ADDRESS {self.address} can't be listened on: {error.strerror}"
            raise CannotListen(reason) from error
        self.address = f"{self.address.rpartition(':')[0]}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            verify(self._secret, request.headers.get(SIGNATURE, ""), body, self._clock())
        except Forged as error:
            log.warning("webhook refused", reason=str(error), peer=request.remote)
            return web.Response(status=HTTPStatus.UNAUTHORIZED, text=str(error))
        try:
            hook = json.loads(body)
            id, key = hook["id"], hook["key"]
            if not (isinstance(id, str) and isinstance(key, str) and id and (id + key).isprintable()):
                raise ValueError("id and key must be text")
        except (ValueError, KeyError, TypeError):
            return web.Response(status=HTTPStatus.BAD_REQUEST, text='must be an object with "id" and "key"')
        try:
            await hear_of(id, key, payments=self._payments)
        except Unavailable as error:
            log.warning("webhook not taken", error=str(error))
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.Response(status=HTTPStatus.NO_CONTENT)
