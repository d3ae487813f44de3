"""A payment provider over HTTP, shaped as such firms' are.

    POST /authorizations                        {amount, currency, token, payment_id}
    POST /authorizations/<reference>/captures   {amount, currency, payment_id}; so are /voids and /refunds
    GET  /operations/<key>                      what became of an operation; 404 if it was never heard of

Every POST carries `Idempotency-Key`, and every call `Authorization: Bearer`. Amounts are decimal strings. An answer is
{key, status, amount, currency, reference, reason}, its status "approved", "declined" or "pending". Only a body that
says what became of this very key counts as an answer: whatever else comes, or doesn't, leaves the outcome unknown.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
import structlog

from chassis.errors import Unavailable
from chassis.money import Money
from payment_svc.domain.payments import Approved, Attempt, Operation, Outcome, Refused

log = structlog.get_logger(__name__)

_CONNECTIONS = 32
_PATHS = {Operation.CAPTURE: "captures", Operation.VOID: "voids", Operation.REFUND: "refunds"}
# Without an answer, or with one cut short or garbled.
_LOST = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class HttpProvider:
    """`Provider`. `url` is what the paths are below; each call may take `timeout` seconds."""

    def __init__(self, url: str, *, api_key: str, timeout: float):
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Connects to nothing yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=self._timeout,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def submit(self, attempts: Sequence[Attempt]) -> AsyncIterator[Mapping[str, Outcome]]:
        asking = {asyncio.create_task(self._ask(attempt)): attempt.key for attempt in attempts}
        waiting = set(asking)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if answers := {asking[task]: outcome for task in done if (outcome := task.result())}:
                    yield answers
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                await asyncio.wait(waiting)

    async def find(self, keys: Sequence[str]) -> Mapping[str, Outcome | None]:
        found = await asyncio.gather(*map(self._look_up, keys))
        return {key: outcome for answer in found for key, outcome in answer.items()}

    async def _ask(self, attempt: Attempt) -> Outcome | None:
        amount, currency = str(attempt.amount).split()
        body = {"amount": amount, "currency": currency, "payment_id": attempt.payment_id}
        if attempt.operation is Operation.AUTHORIZE:
            path = "authorizations"
            body["token"] = attempt.token
        else:
            path = f"authorizations/{quote(attempt.reference, safe='')}/{_PATHS[attempt.operation]}"
        try:
            status, answer = await self._call("POST", path, json=body, headers={"Idempotency-Key": attempt.key})
        except _LOST as error:
            log.info("no answer", key=attempt.key, error=str(error) or type(error).__name__)
            return None
        return _outcome(status, answer, attempt.key, attempt.amount)

    async def _look_up(self, key: str) -> Mapping[str, Outcome | None]:
        """Its outcome, None for one never heard of, nothing where that isn't known."""
        try:
            status, answer = await self._call("GET", f"operations/{quote(key, safe='')}")
        except _LOST as error:
            log.info("no answer", key=key, error=str(error) or type(error).__name__)
            return {}
        if status == HTTPStatus.NOT_FOUND and answer.get("key") == key:
            return {key: None}
        outcome = _outcome(status, answer, key)
        return {key: outcome} if outcome else {}

    async def _call(self, method: str, path: str, **arguments: Any) -> tuple[int, Mapping[str, Any]]:
        """The HTTP status and the JSON object that came with it. Raises what _LOST has."""
        if self._session is None:
            raise Unavailable("the provider's client isn't open")
        # A redirect would take the API key elsewhere.
        async with self._session.request(method, f"{self._url}/{path}", allow_redirects=False, **arguments) as response:
            answer = await response.json(content_type=None)
            if not isinstance(answer, dict):
                raise ValueError(f"HTTP {response.status} with no JSON object")
            return response.status, answer


def _outcome(status: int, answer: Mapping[str, Any], key: str, asked: Money | None = None) -> Outcome | None:
    """What an answer says of a key; None if that isn't certain."""
    about = {"key": key, "http_status": status}
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        log.info("the provider is in trouble", **about)
        return None
    if answer.get("key") != key:
        log.error("the provider's answer is about nothing it was asked", **about, error=str(answer.get("error", "")))
        return None
    match answer.get("status"):
        case "approved":
            if asked and _amount(answer) != asked:
                log.error("the provider approved another amount", **about)
                return None
            return Approved(str(answer.get("reference", "")))
        case "declined":
            return Refused(str(answer.get("reason") or "declined"))
        case other:
            log.info("the provider hasn't decided", **about, state=str(other))
            return None


def _amount(answer: Mapping[str, Any]) -> Money | None:
    try:
        return Money.parse(str(answer.get("currency")), str(answer.get("amount")))
    except ValueError:
        return None
