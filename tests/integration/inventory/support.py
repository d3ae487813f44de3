"""A stage for a service: what it is told, what it says, and what its tables hold."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import asyncpg
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc.aio import AioRpcError
from grpc_status import rpc_status
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy
from polymart.inventory.v1.commands_pb2 import ReservationLine, ReserveStock
from polymart.inventory.v1.inventory_service_pb2 import GetStockRequest, SetStockRequest, StockCount
from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub

from chassis.ids import uuid7
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.publisher import Publisher
from chassis.rpc.client import channel
from chassis.service import RunningService, Service, start
from tests.conftest import until

M = TypeVar("M", bound=Message)
S = TypeVar("S")


class Stage:
    """The broker as seen from outside the service: commands go in, `heard` are the events of one context."""

    def __init__(self, nats: Nats, context: str):
        self._nats = nats
        self._context = context
        self.sent: list[Envelope] = []
        self.heard: list[Envelope] = []

    async def listen(self) -> None:
        async def hear(message: Msg) -> None:
            self.heard.append(Envelope.decode(message.subject, message.headers, message.data))

        self._subscription = await self._nats.js.subscribe(
            f"evt.{self._context}.>", cb=hear, ordered_consumer=True, deliver_policy=DeliverPolicy.NEW
        )

    async def leave(self) -> None:
        await self._subscription.unsubscribe()

    async def send(self, *payloads: Message) -> list[Envelope]:
        """Publish commands, each as a new message about the id in its first field."""
        envelopes = []
        for payload in payloads:
            assert payload.DESCRIPTOR is not None
            about = str(getattr(payload, payload.DESCRIPTOR.fields[0].name))
            traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
            envelope = Envelope.new(payload, aggregate_id=about, source="order_svc")
            envelopes.append(replace(envelope, traceparent=traceparent))
        await Publisher(self._nats).send(envelopes)
        self.sent += envelopes
        return envelopes

    async def resend(self, envelopes: Sequence[Envelope]) -> None:
        """The same messages, under message ids that the broker hasn't seen."""
        await asyncio.gather(
            *(
                self._nats.js.publish(e.subject, e.data, headers={**e.headers(), "Nats-Msg-Id": uuid7()})
                for e in envelopes
            )
        )

    async def refill(self) -> None:
        """Delete the commands' stream, make it again, and fill it with everything that was ever sent, backwards."""
        await self._nats.js.delete_stream("CMD")
        await ensure_topology(self._nats)
        await Publisher(self._nats).send(self.sent[::-1])

    async def all_handled(self) -> None:
        """Wait until no command is left."""

        async def empty() -> bool:
            return (await self._nats.js.stream_info("CMD")).state.messages == 0

        await until(empty, 20)

    def answers(self, kind: type[M]) -> list[M]:
        return [e.payload for e in self.heard if isinstance(e.payload, kind)]

    async def answered(self, kind: type[Message], count: int = 1, seconds: float = 15) -> None:
        await until(lambda: len(self.answers(kind)) >= count, seconds)


@asynccontextmanager
async def stage(nats: Nats, context: str) -> AsyncIterator[Stage]:
    made = Stage(nats, context)
    await made.listen()
    yield made
    await made.leave()


@asynccontextmanager
async def running(*services: Service) -> AsyncIterator[list[RunningService]]:
    """The services, started and ready; drained when the block ends."""
    started = [await start(service) for service in services]
    try:
        await asyncio.gather(*(service.ready() for service in started))
        yield started
    finally:
        await asyncio.gather(*(service.drain_and_stop() for service in started))


@asynccontextmanager
async def broker(url: str) -> AsyncIterator[Nats]:
    """A connection to newly made streams and consumers."""
    connection = Nats(url, "stage")
    await connection.open()
    for stream in await connection.js.streams_info():
        await connection.js.delete_stream(str(stream.config.name))
    await ensure_topology(connection)
    yield connection
    await connection.close()


@asynccontextmanager
async def databases(admin_url: str, count: int = 1) -> AsyncIterator[list[str]]:
    """URLs of empty databases."""
    names = [f"test_{secrets.token_hex(6)}" for _ in range(count)]
    admin = await asyncpg.connect(admin_url)
    for name in names:
        await admin.execute(f"CREATE DATABASE {name}")
    yield [f"{admin_url.rpartition('/')[0]}/{name}" for name in names]
    for name in names:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


def follows(event: Envelope, command: Envelope) -> bool:
    """Is it tied to the command: by cause, correlation and trace?"""
    trace = [(e.traceparent or "").split("-")[1] for e in (event, command)]
    return (event.causation_id, event.correlation_id, trace[0]) == (command.id, command.correlation_id, trace[1])


def kill(service: RunningService) -> None:
    """End its workers wherever they are."""
    for _, task in service._workers:
        task.cancel()


@asynccontextmanager
async def stub_of(address: str, stub: Callable[..., S]) -> AsyncIterator[S]:
    async with channel(address) as open_channel:
        yield stub(open_channel)


async def digest(url: str) -> dict[str, str]:
    """A checksum of every table's rows, by its name; the relay's lease left out."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        names = sorted({row["relname"] for row in tables} - {"relay_lease"})
        return {
            name: await connection.fetchval(
                f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {name} t"  # noqa: S608
            )
            for name in names
        }
    finally:
        await connection.close()


async def outbox_is_empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:

        async def empty() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM outbox")

        await until(empty)
    finally:
        await connection.close()


def reason_of(error: AioRpcError) -> str:
    status = rpc_status.from_call(error)
    info = ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    return info.reason


def violations_of(error: AioRpcError) -> set[str]:
    status = rpc_status.from_call(error)
    bad = BadRequest()
    assert status is not None
    assert status.details[1].Unpack(bad)
    return {violation.field for violation in bad.field_violations}


# SKUs and locations whose units aren't what movements and reservations say.
FAULTS = """
WITH moved AS (
    SELECT sku, location_id, sum(on_hand_delta) AS on_hand, sum(reserved_delta) AS reserved FROM movements
    GROUP BY sku, location_id
), open AS (
    SELECT sku, location_id, sum(quantity) AS reserved FROM reservations JOIN holds USING (order_id)
    WHERE state = 'RESERVED' GROUP BY sku, location_id
)
SELECT sku, location_id FROM stock FULL JOIN moved USING (sku, location_id) FULL JOIN open USING (sku, location_id)
WHERE stock.sku IS NULL OR stock.on_hand <> coalesce(moved.on_hand, 0)
    OR stock.reserved <> coalesce(moved.reserved, 0) OR stock.reserved <> coalesce(open.reserved, 0)
    OR stock.reserved NOT BETWEEN 0 AND stock.on_hand
"""


def reserve(order_id: str, **lines: int) -> ReserveStock:
    return ReserveStock(order_id=order_id, lines=[ReservationLine(sku=s, quantity=q) for s, q in lines.items()])


async def count(stub: InventoryServiceStub, location: str = "", **counts: int) -> None:
    found = [StockCount(sku=s, on_hand=n, location_id=location) for s, n in counts.items()]
    await stub.SetStock(SetStockRequest(counts=found), timeout=5)


async def units(stub: InventoryServiceStub, sku: str) -> tuple[int, int]:
    level = await stub.GetStock(GetStockRequest(sku=sku), timeout=5)
    return level.on_hand, level.reserved
