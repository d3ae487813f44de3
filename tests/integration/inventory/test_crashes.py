"""The process dies, or loses its database, between any two statements and between commit and ack; messages come again.

Against a model in memory that is told of a batch once, when it is committed: rows, answers and announcements are to be
the same as if nothing had ever failed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from google.protobuf.message import Message
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from polymart.inventory.v1.commands_pb2 import CommitStock, ReleaseStock, ReserveStock

from chassis.errors import FailedPrecondition, Unavailable
from chassis.ids import sequential_ids
from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction, migrate
from inventory_svc.adapters.event_codec import message as published
from inventory_svc.adapters.postgres_stock import PostgresBook, PostgresWarehouse
from inventory_svc.application.levels import adjust_stock, set_stock
from inventory_svc.application.reservations import carry_out, restock
from inventory_svc.domain.allocation import Line
from inventory_svc.domain.reservations import Command, Commit, HoldState, Release, Reserve, Restock
from inventory_svc.domain.stock import NONE, Adjustment, Count
from inventory_svc.entrypoints.messages import reactions
from tests.integration.inventory.support import FAULTS, reserve
from tests.unit.inventory.shelf import LOCATIONS, Shelf

T = TypeVar("T")

CONSUMER = "inventory_svc-CMD"
STOCK = {"main": {"A": 3, "B": 4, "C": 1}, "north": {"A": 3, "B": 3}, "attic": {"A": 5}}
WISHES = st.dictionaries(st.sampled_from("ABC"), st.integers(1, 4), min_size=1)


class Died(BaseException):
    """The process is no more."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens at a transaction's statement of that number, or at its end where it has fewer."""

    how: str  # lives, dies, loses its connection, dies after the commit
    statement: int = 0


LIVES = Fate("lives")
FATES = st.one_of(
    st.just(LIVES),
    st.just(Fate("dies after the commit")),
    st.builds(Fate, st.sampled_from(["dies", "loses its connection"]), st.integers(1, 12)),
)


class FatedTransaction(Transaction):
    __slots__ = ("_fate", "statements")

    def __init__(self, tx: Transaction, fate: Fate):
        super().__init__(tx._connection)
        self._after_commit = tx._after_commit
        self._fate = fate
        self.statements = 0

    def meet_fate(self) -> None:
        if self._fate.how == "loses its connection":
            self._connection.terminate()
        elif self._fate.how == "dies":
            raise Died

    def _count(self) -> None:
        self.statements += 1
        if self.statements == self._fate.statement:
            self.meet_fate()

    async def execute(self, query: str, *args: object) -> str:
        self._count()
        return await super().execute(query, *args)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        self._count()
        return await super().fetch(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        self._count()
        return await super().fetchval(query, *args)


class FatedPostgres(Postgres):
    """A database whose next transaction meets `fate`."""

    fate = LIVES
    statements = 0  # of the last transaction

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Transaction]:
        fate = self.fate
        async with super().transaction(**options) as tx:
            fated = FatedTransaction(tx, fate)
            yield fated
            self.statements = fated.statements
            if fated.statements < fate.statement:
                fated.meet_fate()
        if fate.how == "dies after the commit":
            raise Died


class StockUnderFire(RuleBasedStateMachine):
    orders = Bundle("orders")
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.db = FatedPostgres(self.url, max_size=3)
        outbox = PostgresOutbox(self.db)
        self.inbox = PostgresInbox(self.db)
        self.warehouse = PostgresWarehouse(self.db, outbox)
        self.handlers = reactions(lambda tx, causes: PostgresBook(tx, outbox, causes))
        self.new_id = sequential_ids()
        self.shelf = Shelf()
        self.wishes: dict[str, ReserveStock] = {}
        self.waiting: dict[str, Envelope] = {}  # what the broker holds, by message id
        self.had: set[str] = set()

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    @initialize(target=orders)
    def open(self) -> str:
        """A shop with stock, and an order that took some."""
        self.run(self._open())
        for location, counts in STOCK.items():
            found = [Count(sku, units, location) for sku, units in counts.items()]
            self.run(set_stock(found, request_id="", warehouse=self.warehouse))
            self.shelf.count(counts, location)
        self.wishes["sold"] = reserve("sold", A=4, B=2)
        self._send(self.wishes["sold"])
        self._deliver(list(self.waiting), LIVES)
        self._send(CommitStock(order_id="sold"))
        self._deliver(list(self.waiting), LIVES)
        return "sold"

    async def _open(self) -> None:
        await self.db.open()
        await self.db.execute("TRUNCATE items, stock, holds, reservations, movements, requests, inbox, outbox")
        await self.db.execute("DELETE FROM locations WHERE location_id <> 'main'")
        for priority, name in enumerate(LOCATIONS[1:]):
            await self.db.execute("INSERT INTO locations VALUES ($1, '', $2)", name, priority + 1)

    def teardown(self) -> None:
        self.run(self.db.close())
        self.runner.close()

    @rule(target=orders, wishes=st.lists(WISHES, min_size=1, max_size=3))
    def place(self, wishes: list[dict[str, int]]) -> MultipleResults[str]:
        names = [f"o{len(self.wishes) + n}" for n in range(len(wishes))]
        for order_id, lines in zip(names, wishes, strict=True):
            self.wishes[order_id] = reserve(order_id, **lines)
            self._send(self.wishes[order_id])
        return multiple(*names)

    @rule(said=st.lists(st.tuples(orders, st.sampled_from(["reserve", "commit", "release"])), min_size=1, max_size=4))
    def say(self, said: list[tuple[str, str]]) -> None:
        for order_id, what in said:
            hold = self.shelf.holds.get(order_id)
            if what == "reserve":
                self._send(self.wishes[order_id])
            elif what == "release":
                self._send(ReleaseStock(order_id=order_id))
            elif hold and hold.allocations:  # only a saga that heard StockReserved commits
                self._send(CommitStock(order_id=order_id))

    def _send(self, payload: Message) -> None:
        envelope = Envelope.new(payload, aggregate_id="x", source="order_svc")
        self.waiting[envelope.id] = envelope

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), fate=FATES)
    def handle_some(self, data: st.DataObject, fate: Fate) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.waiting)), min_size=1, max_size=4, unique=True))
        self._deliver(ids, fate)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), fate=FATES)
    def handle_everything(self, data: st.DataObject, fate: Fate) -> None:
        self._deliver(data.draw(st.permutations(sorted(self.waiting))), fate)

    def _deliver(self, ids: Sequence[str], fate: Fate) -> None:
        batch = [self.waiting[id] for id in ids]
        survived, committed = self._happens(self._handle(batch), fate)
        if committed:
            if fresh := [_command(envelope.payload) for envelope in batch if envelope.id not in self.had]:
                self.shelf.handle(*fresh)
            self.had.update(ids)
        if survived and committed:
            for id in ids:
                del self.waiting[id]

    async def _handle(self, batch: Sequence[Envelope]) -> None:
        async with self.inbox.begin(CONSUMER, [envelope.id for envelope in batch]) as (tx, fresh):
            if messages := [envelope for envelope in batch if envelope.id in fresh]:
                await self.handlers[type(messages[0].payload)](messages, tx=tx)

    @rule(
        sku=st.sampled_from("ABC"),
        delta=st.integers(-3, 3).filter(bool),
        location=st.sampled_from(LOCATIONS),
        fate=FATES,
    )
    def adjust(self, sku: str, delta: int, location: str, fate: Fate) -> None:
        change, request_id = Adjustment(sku, delta, "why", location), self.new_id()
        here = self.shelf.levels[sku].at.get(location, NONE)

        async def called() -> None:
            try:
                await adjust_stock([change], request_id=request_id, warehouse=self.warehouse)
            except FailedPrecondition:
                assert here.on_hand + delta < here.reserved

        self._happens(called(), fate)
        self.run(called())
        if here.on_hand + delta >= here.reserved:
            self.shelf.adjust([change])

    @rule(order_id=orders, sku=st.sampled_from("ABC"), location=st.sampled_from(("", *LOCATIONS)), fate=FATES)
    def take_back(self, order_id: str, sku: str, location: str, fate: Fate) -> None:
        command = Restock(order_id, self.new_id(), (Line(sku, 1),), location)
        hold = self.shelf.holds.get(order_id)
        sold = {one.sku for one in hold.taken()} if hold and hold.state is HoldState.COMMITTED else set()
        possible = sku in sold or (hold is not None and hold.state is HoldState.RELEASED)

        async def called() -> None:
            try:
                await restock(command, warehouse=self.warehouse)
            except FailedPrecondition:
                assert not possible

        _, committed = self._happens(called(), fate)
        # Whoever got no answer calls again, and hears what stands.
        self.run(called())
        for _ in range(1 + committed) if possible else ():
            self.shelf.handle(command)

    def _happens(self, step: Coroutine[Any, Any, None], fate: Fate) -> tuple[bool, bool]:
        """Did the process survive it, and was it committed?"""
        self.db.fate = fate
        try:
            self.run(step)
        except Died:
            return False, fate.how == "dies after the commit"
        except Unavailable:
            assert fate.how == "loses its connection"
            return False, False
        finally:
            self.db.fate = LIVES
        return True, True

    @invariant()
    def the_store_is_as_if_nothing_had_failed(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        assert await self.db.fetch(FAULTS) == []
        rows = await self.db.fetch("SELECT sku, location_id, on_hand, reserved FROM stock")
        stored = {(sku, location): (on_hand, reserved) for sku, location, on_hand, reserved in rows}
        for sku, level in self.shelf.levels.items():
            for location in LOCATIONS:
                units = level.at.get(location, NONE)
                assert stored.get((sku, location), (0, 0)) == (units.on_hand, units.reserved)
        rows = await self.db.fetch("SELECT sku, availability, availability_version FROM items")
        assert {sku: (told, version) for sku, told, version in rows} == {
            sku: (level.availability, level.availability_version) for sku, level in self.shelf.levels.items()
        }
        rows = await self.db.fetch("SELECT order_id, state FROM holds")
        assert dict(map(tuple, rows)) == {id: str(hold.state) for id, hold in self.shelf.holds.items()}
        # What was announced, each once and in its order.
        rows = await self.db.fetch("SELECT subject, headers, data FROM outbox ORDER BY seq")
        said = [_message(*row) for row in rows]
        assert said == [published(event)[1] for event in self.shelf.events]


def _message(subject: str, headers: str, data: bytes) -> Message:
    return Envelope.decode(subject, json.loads(headers), data).payload


def _command(payload: Message) -> Command:
    match payload:
        case ReserveStock():
            return Reserve(payload.order_id, tuple(Line(line.sku, line.quantity) for line in payload.lines))
        case CommitStock():
            return Commit(payload.order_id)
        case ReleaseStock():
            return Release(payload.order_id)
    raise TypeError(payload)


def test_nothing_is_lost_or_done_twice_wherever_it_dies(database: str) -> None:
    asyncio.run(migrate(database, "inventory_svc"))
    machine = type("StockUnderFireHere", (StockUnderFire,), {"url": database})
    # Making a failure smaller takes longer than a test may.
    short = settings(max_examples=15, stateful_step_count=20, deadline=None, phases=[Phase.generate])
    run_state_machine_as_test(machine, settings=short)


async def test_a_batch_is_as_many_statements_as_a_single_order(database: str) -> None:
    await migrate(database, "inventory_svc")
    db = FatedPostgres(database)
    await db.open()
    warehouse = PostgresWarehouse(db, PostgresOutbox(db))
    await set_stock([Count(f"S{n}", 10**6) for n in range(500)], request_id="", warehouse=warehouse)
    for size in (1, 300):
        ids = [f"{size}-{n}" for n in range(size)]
        wishes = [Reserve(id, tuple(Line(f"S{(n * 7 + k) % 500}", 1) for k in range(20))) for n, id in enumerate(ids)]
        counted = []
        for batch in (wishes, [Commit(id) for id in ids], [Release(id) for id in ids]):
            async with warehouse.transaction() as book:
                await carry_out(batch, book=book)
            counted.append(db.statements)
        assert counted == [7, 8, 9]
    await db.close()
