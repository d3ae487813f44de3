"""What every payment provider does, the sandbox in its database and the adapter over HTTP alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest

from chassis.money import Money
from chassis.postgres import Postgres
from payment_svc.adapters.http_provider import HttpProvider
from payment_svc.adapters.sandbox_provider import SandboxProvider
from payment_svc.application.ports import Provider
from payment_svc.domain.payments import Approved, Attempt, Operation, Outcome, Refused
from tests.integration.payment.firm import API_KEY, open_firm

PRICE, PART = Money("GBP", 12_340_000_000), Money("GBP", 5_000_000_000)
TIMEOUT = 20.0


@pytest.fixture(params=["sandbox", "http"])
async def provider(
    request: pytest.FixtureRequest, fresh_database: Callable[[], Awaitable[str]]
) -> AsyncIterator[Provider]:
    if request.param == "sandbox":
        db = Postgres(await fresh_database())
        await db.open()
        sandbox = SandboxProvider(db, timeout=TIMEOUT)
        await sandbox.create_schema()
        yield sandbox
        await db.close()
    else:
        async with open_firm(patience=TIMEOUT) as firm:
            http = HttpProvider(firm.url, api_key=API_KEY, timeout=TIMEOUT)
            await http.open()
            yield http
            await http.close()


async def ask(provider: Provider, *attempts: Attempt) -> dict[str, Outcome]:
    return {key: outcome async for answers in provider.submit(attempts) for key, outcome in answers.items()}


async def authorized(provider: Provider, token: str = "tok_approved") -> Attempt:
    """An authorisation that was approved, with its reference."""
    attempt = Attempt(str(uuid4()), Operation.AUTHORIZE, PRICE, token)
    outcome = (await ask(provider, attempt))[attempt.key]
    assert isinstance(outcome, Approved)
    return Attempt(attempt.payment_id, Operation.AUTHORIZE, PRICE, token, outcome.reference)


def then(first: Attempt, operation: Operation, amount: Money = PRICE, id: str = "") -> Attempt:
    return Attempt(first.payment_id, operation, amount, first.token, first.reference, operation_id=id)


async def test_a_key_is_done_once_and_answered_the_same_ever_after(provider: Provider) -> None:
    attempt = Attempt(str(uuid4()), Operation.AUTHORIZE, PRICE, "tok_approved")
    answers = [(await ask(provider, attempt))[attempt.key]]
    answers += [a[attempt.key] for a in await asyncio.gather(*(ask(provider, attempt) for _ in range(10)))]
    assert len(set(answers)) == 1
    assert await provider.find([attempt.key]) == {attempt.key: answers[0]}


async def test_what_was_never_heard_of_is_found_to_be_so(provider: Provider) -> None:
    assert await provider.find(["x:AUTHORIZE"]) == {"x:AUTHORIZE": None}


async def test_a_refusal_is_on_record(provider: Provider) -> None:
    attempt = Attempt(str(uuid4()), Operation.AUTHORIZE, PRICE, "tok_declined")
    outcome = (await ask(provider, attempt))[attempt.key]
    assert isinstance(outcome, Refused)
    assert outcome.reason
    assert await provider.find([attempt.key, "y:VOID"]) == {attempt.key: outcome, "y:VOID": None}


async def test_many_are_answered_each_for_itself(provider: Provider) -> None:
    attempts = [
        Attempt(str(uuid4()), Operation.AUTHORIZE, PRICE, "tok_declined" if n % 3 else "tok_approved")
        for n in range(60)
    ]
    answers = await ask(provider, *attempts)
    assert [type(answers[a.key]) for a in attempts] == [Refused if n % 3 else Approved for n in range(60)]


async def test_refunds_go_up_to_what_was_captured(provider: Provider) -> None:
    first = await authorized(provider)
    steps = [
        (then(first, Operation.REFUND, PART, "early"), Refused),
        (then(first, Operation.CAPTURE), Approved),
        (then(first, Operation.REFUND, PART, "one"), Approved),
        (then(first, Operation.REFUND, PRICE, "two"), Refused),
        (then(first, Operation.REFUND, Money("GBP", PRICE.nanos - PART.nanos), "three"), Approved),
        (then(first, Operation.REFUND, Money("GBP", 10_000_000), "four"), Refused),
    ]
    for attempt, expected in steps:
        assert isinstance((await ask(provider, attempt))[attempt.key], expected), attempt.key


async def test_what_was_voided_is_not_captured_and_what_was_captured_not_voided(provider: Provider) -> None:
    voided, captured = await authorized(provider), await authorized(provider)
    for first, one, other in (
        (voided, Operation.VOID, Operation.CAPTURE),
        (captured, Operation.CAPTURE, Operation.VOID),
    ):
        assert isinstance((await ask(provider, then(first, one)))[then(first, one).key], Approved)
        assert isinstance((await ask(provider, then(first, other)))[then(first, other).key], Refused)


async def test_an_amount_of_nothing_is_authorised_and_captured(provider: Provider) -> None:
    nothing = Money("JPY", 0)
    attempt = Attempt(str(uuid4()), Operation.AUTHORIZE, nothing, "tok_approved")
    outcome = (await ask(provider, attempt))[attempt.key]
    assert isinstance(outcome, Approved)
    capture = Attempt(attempt.payment_id, Operation.CAPTURE, nothing, "tok_approved", outcome.reference)
    assert isinstance((await ask(provider, capture))[capture.key], Approved)
