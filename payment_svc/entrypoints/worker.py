"""The worker that has the provider asked for what is due."""

import asyncio
from datetime import timedelta

import structlog

from chassis.clock import rest
from chassis.errors import Unavailable
from payment_svc.application.payments import ask_provider
from payment_svc.application.ports import Payments, Provider

log = structlog.get_logger(__name__)

_BATCH = 200
_IN_FLIGHT = 8
_POLL = 0.25
# For looking up and committing, beside the waits for the provider.
_LEASE_MARGIN = timedelta(seconds=4)


class ProviderWorker:
    """Claims due attempts in batches: at once after a nudge, else every quarter of a second.

    A batch that waits for slow answers doesn't hold up the next: some are in flight at a time. `timeout` is how long
    the provider may take to answer, in seconds.
    """

    name = "payment_svc-provider"

    def __init__(self, payments: Payments, provider: Provider, *, timeout: float):
        self._payments = payments
        self._provider = provider
        self._lease = timedelta(seconds=2 * timeout) + _LEASE_MARGIN
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(_IN_FLIGHT)
        self._stopping = False

    def nudge(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as batches:
            while not self._stopping:
                await self._free.acquire()
                if self._stopping:
                    break
                self._wake.clear()
                batches.create_task(self._batch())
                await rest(self._wake, _POLL)

    async def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _batch(self) -> None:
        try:
            claimed = await ask_provider(_BATCH, lease=self._lease, payments=self._payments, provider=self._provider)
            if len(claimed) == _BATCH:
                self.nudge()
        except Unavailable as error:
            log.warning("store out of reach", error=str(error))
        except Exception:
            # Its claims expire: they are asked for again, under the same keys.
            log.exception("asking the provider failed")
        finally:
            self._free.release()
