"""A worker of payments, run as a process of its own, that kills itself with SIGKILL at one step of an attempt."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum

from google.protobuf.message import Message

from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres
from chassis.service import Resource
from payment_svc.adapters.http_provider import HttpProvider
from payment_svc.adapters.postgres_payments import PostgresLedger, PostgresPayments
from payment_svc.adapters.sandbox_provider import SandboxProvider
from payment_svc.application.payments import ask_provider
from payment_svc.application.ports import Provider
from payment_svc.domain.payments import Attempt
from payment_svc.entrypoints.messages import reactions
from tests.integration.payment.firm import API_KEY

TIMEOUT = 20.0


class Step(StrEnum):
    ATTEMPT = "before the attempt's commit"
    ATTEMPTED = "after the attempt's commit"
    CLAIMED = "before the provider's charge"
    CHARGED = "after the provider's charge, before its answer"
    ANSWERED = "after its answer, before the outcome's commit"
    SETTLED = "after the outcome's commit"


class Worker:
    """Handles one command like the service does, then asks the provider until nothing is left to ask.

    `firm` is the URL of the sandbox's database, or of a provider over HTTP.
    """

    def __init__(self, own: str, firm: str, fatal: Step | None = None):
        self._fatal = fatal
        self._db = Postgres(own)
        self._payments = _Payments(self._db, self)
        self._provider: Provider
        self._firm: Resource
        if firm.startswith("http"):
            self._provider = self._firm = HttpProvider(firm, api_key=API_KEY, timeout=TIMEOUT)
        else:
            self._firm = db = Postgres(firm)
            self._provider = _Sandbox(db, self)

    async def handle(self, command: Message, message_id: str) -> None:
        """A delivery of a command; `message_id` is the same in each."""
        about = command.payment_id  # type: ignore[attr-defined]
        message = Envelope.new(command, aggregate_id=about, source="order_svc", id=message_id)
        async with PostgresInbox(self._db).begin("payment_svc-CMD", [message_id]) as (tx, fresh):
            if fresh:
                await reactions(self._payments.ledger)[type(command)]([message], tx=tx)
            self.reach(Step.ATTEMPT)
        self.reach(Step.ATTEMPTED)

    async def ask(self) -> None:
        # Nobody else holds a claim: what the dead one held is free.
        await self._db.execute("UPDATE attempts SET due_at = now()")
        while await ask_provider(10, lease=timedelta(), payments=self._payments, provider=self._provider):
            pass

    def reach(self, step: Step) -> None:
        if step is self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    async def __aenter__(self) -> "Worker":
        await self._db.open()
        await self._firm.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._db.close()
        await self._firm.close()


class _Payments(PostgresPayments):
    def __init__(self, db: Postgres, worker: Worker):
        super().__init__(db, PostgresOutbox(db))
        self._worker = worker

    @asynccontextmanager
    async def transaction(self, *, request_id: str = "") -> AsyncIterator[PostgresLedger]:
        async with super().transaction(request_id=request_id) as ledger:
            yield ledger
            self._worker.reach(Step.ANSWERED)
        self._worker.reach(Step.SETTLED)


class _Sandbox(SandboxProvider):
    def __init__(self, db: Postgres, worker: Worker):
        super().__init__(db, timeout=TIMEOUT)
        self._worker = worker

    async def _do(self, attempts: Sequence[Attempt]) -> set[str]:
        self._worker.reach(Step.CLAIMED)
        done = await super()._do(attempts)
        self._worker.reach(Step.CHARGED)
        return done


def live_until(own: str, firm: str, command: Message, message_id: str, fatal: Step | None) -> None:
    """Take a command as far as `fatal`, which it doesn't survive."""

    async def live() -> None:
        async with Worker(own, firm, fatal) as worker:
            await worker.handle(command, message_id)
            await worker.ask()

    asyncio.run(live())
