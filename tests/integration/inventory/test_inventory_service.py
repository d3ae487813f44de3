"""The service on a real database and broker, called and commanded as in production."""

import asyncio
import random
import time
from uuid import uuid4

import asyncpg
import grpc
import pytest
from polymart.inventory.v1.commands_pb2 import CommitStock, ReleaseStock, ReservationLine, ReserveStock, RestockStock
from polymart.inventory.v1.events_pb2 import (
    Shortage,
    StockAvailabilityChanged,
    StockCommitted,
    StockRejected,
    StockReleased,
    StockReserved,
    StockRestocked,
)
from polymart.inventory.v1.inventory_service_pb2 import (
    AdjustStockRequest,
    BatchGetStockRequest,
    GetStockRequest,
    SetStockRequest,
    StockAdjustment,
    StockCount,
    StreamAvailabilityRequest,
)
from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from polymart.inventory.v1.stock_pb2 import AVAILABILITY_IN_STOCK, AVAILABILITY_LOW, AVAILABILITY_OUT

from tests.integration.inventory.support import (
    FAULTS,
    Stage,
    count,
    follows,
    reason_of,
    reserve,
    units,
    violations_of,
)


async def test_counting_adjusting_and_reading(stock: InventoryServiceStub, orders: Stage) -> None:
    counts = [StockCount(sku="A", on_hand=6), StockCount(sku="B")]
    levels = (await stock.SetStock(SetStockRequest(counts=counts), timeout=5)).levels
    assert [(x.sku, x.on_hand, x.available, x.availability) for x in levels] == [
        ("A", 6, 6, AVAILABILITY_IN_STOCK),
        ("B", 0, 0, AVAILABILITY_OUT),
    ]
    adjustments = [
        StockAdjustment(sku="B", delta=3, reason="found"),
        StockAdjustment(sku="A", delta=-1, reason="broken"),
    ]
    request = AdjustStockRequest(adjustments=adjustments, request_id=str(uuid4()))
    for _ in range(2):
        levels = (await stock.AdjustStock(request, timeout=5)).levels
        assert [(x.sku, x.on_hand, x.availability) for x in levels] == [
            ("B", 3, AVAILABILITY_LOW),
            ("A", 5, AVAILABILITY_LOW),
        ]
    got = await stock.BatchGetStock(BatchGetStockRequest(skus=["B", "never stocked", "A"]), timeout=5)
    assert [(x.sku, x.on_hand) for x in got.levels] == [("B", 3), ("A", 5)]
    assert got.levels[0].update_time.seconds > time.time() - 60
    await orders.answered(StockAvailabilityChanged, 4)
    flips = sorted((e.sku, e.version, e.availability) for e in orders.answers(StockAvailabilityChanged))
    assert flips == [
        ("A", 1, AVAILABILITY_IN_STOCK),
        ("A", 2, AVAILABILITY_LOW),
        ("B", 1, AVAILABILITY_OUT),
        ("B", 2, AVAILABILITY_LOW),
    ]


async def test_an_old_count_sent_again_does_not_undo_what_came_after(stock: InventoryServiceStub) -> None:
    request = SetStockRequest(counts=[StockCount(sku="A", on_hand=6)], request_id=str(uuid4()))
    await stock.SetStock(request, timeout=5)
    await count(stock, A=9)
    assert (await stock.SetStock(request, timeout=5)).levels[0].on_hand == 9
    request.counts[0].on_hand = 1
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.SetStock(request, timeout=5)
    assert failure.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(failure.value) == "REQUEST_ID_REUSED"


async def test_the_same_call_many_times_at_once_counts_once(stock: InventoryServiceStub) -> None:
    adjustments = [StockAdjustment(sku=sku, delta=5, reason="found") for sku in "AB"]
    request = AdjustStockRequest(adjustments=adjustments, request_id=str(uuid4()))
    await asyncio.gather(*(stock.AdjustStock(request, timeout=5) for _ in range(20)))
    assert await units(stock, "A") == (5, 0)


async def test_a_request_id_sent_again_with_another_reason_is_refused(stock: InventoryServiceStub) -> None:
    request = AdjustStockRequest(
        adjustments=[StockAdjustment(sku="A", delta=5, reason="found")], request_id=str(uuid4())
    )
    await stock.AdjustStock(request, timeout=5)
    request.adjustments[0].reason = "returned"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.AdjustStock(request, timeout=5)
    assert reason_of(failure.value) == "REQUEST_ID_REUSED"


async def test_calls_too_old_to_be_repeated_are_forgotten(stock: InventoryServiceStub, db: asyncpg.Connection) -> None:
    await db.execute(
        "INSERT INTO requests SELECT gen_random_uuid(), '', now() - interval '31 days' FROM generate_series(1, 9)"
    )
    recent = str(uuid4())
    await db.execute("INSERT INTO requests VALUES ($1, '', now() - interval '29 days')", recent)
    for _ in range(5):
        adjustments = [StockAdjustment(sku="A", delta=1, reason="found")]
        await stock.AdjustStock(AdjustStockRequest(adjustments=adjustments, request_id=str(uuid4())), timeout=5)
    kept = {str(row["request_id"]) for row in await db.fetch("SELECT request_id FROM requests")}
    assert (len(kept), recent in kept) == (6, True)


async def test_a_forgotten_call_that_is_sent_again_is_refused_and_moves_nothing(
    stock: InventoryServiceStub, db: asyncpg.Connection
) -> None:
    found = [StockAdjustment(sku="A", delta=3, reason="found")]
    request = AdjustStockRequest(adjustments=found, request_id=str(uuid4()))
    await stock.AdjustStock(request, timeout=5)
    await db.execute("DELETE FROM requests")
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError, match="over 30 days ago") as failure:
            await stock.AdjustStock(request, timeout=5)
        assert failure.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert reason_of(failure.value) == "REQUEST_ID_REUSED"
    assert await units(stock, "A") == (3, 0)
    assert await db.fetchval("SELECT count(*) FROM movements") == 1


async def test_first_counts_of_the_same_skus_in_any_order_at_once(stock: InventoryServiceStub) -> None:
    skus = [f"S{n}" for n in range(300)]

    async def counted(seed: int) -> None:
        shuffled = random.Random(seed).sample(skus, len(skus))
        request = SetStockRequest(counts=[StockCount(sku=s, on_hand=seed) for s in shuffled])
        levels = (await stock.SetStock(request, timeout=10)).levels
        assert [(level.sku, level.on_hand) for level in levels] == [(s, seed) for s in shuffled]

    await asyncio.gather(*map(counted, range(8)))


async def test_less_than_is_reserved_is_refused_whole_and_every_sku_named(
    stock: InventoryServiceStub, orders: Stage
) -> None:
    await count(stock, A=5, B=5, C=5)
    await orders.send(reserve("o", A=2, B=3))
    await orders.answered(StockReserved)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await count(stock, A=1, B=0, C=0)
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(failure.value) == "STOCK_BELOW_RESERVED"
    assert "A would have 1" in (failure.value.details() or "")
    assert "B would have 0" in (failure.value.details() or "")
    taken = [StockAdjustment(sku=sku, delta=delta, reason="lost") for sku, delta in (("C", 1), ("A", -4))]
    with pytest.raises(grpc.aio.AioRpcError, match="A would have 1 with 2 reserved"):
        await stock.AdjustStock(AdjustStockRequest(adjustments=taken, request_id=str(uuid4())), timeout=5)
    assert await units(stock, "C") == (5, 0)


async def test_every_fault_of_a_request_is_named(stock: InventoryServiceStub) -> None:
    counts = [
        StockCount(sku="A", on_hand=-1),
        StockCount(on_hand=1),
        StockCount(sku="A"),
        StockCount(sku="x" * 129),
        StockCount(sku="nul\0", on_hand=10**13),
    ]
    adjustments = [StockAdjustment(sku="A"), StockAdjustment(delta=1, reason="x" * 201)]
    calls = [
        (
            stock.SetStock(SetStockRequest(counts=counts, request_id="no uuid"), timeout=5),
            {"counts[0].on_hand", "counts[1].sku", "counts[2].sku", "counts[3].sku", "counts[4].sku"}
            | {"counts[4].on_hand", "request_id"},
        ),
        (
            stock.AdjustStock(AdjustStockRequest(adjustments=adjustments), timeout=5),
            {"request_id", "adjustments[0].delta", "adjustments[0].reason", "adjustments[1].sku"}
            | {"adjustments[1].reason"},
        ),
        (stock.AdjustStock(AdjustStockRequest(), timeout=5), {"request_id", "adjustments"}),
        (stock.GetStock(GetStockRequest(), timeout=5), {"sku"}),
        (stock.BatchGetStock(BatchGetStockRequest(skus=["a", ""]), timeout=5), {"skus[1]"}),
        (stock.BatchGetStock(BatchGetStockRequest(skus=["a"] * 2_001), timeout=5), {"skus"}),
    ]
    for call, fields in calls:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violations_of(failure.value) == fields
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.GetStock(GetStockRequest(sku="never stocked"), timeout=5)
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_two_thousand_at_once_and_all_of_them_streamed(stock: InventoryServiceStub) -> None:
    numbers = range(2_000)
    began = time.perf_counter()
    request = SetStockRequest(counts=[StockCount(sku=f"S{n:04}", on_hand=n % 9) for n in numbers])
    assert len((await stock.SetStock(request, timeout=10)).levels) == 2_000
    assert time.perf_counter() - began < 3
    seen = [a async for r in stock.StreamAvailability(StreamAvailabilityRequest()) for a in r.availabilities]
    assert [a.sku for a in seen] == [f"S{n:04}" for n in numbers]
    assert {a.version for a in seen} == {1}
    assert [a.availability for a in seen[:9]] == [
        AVAILABILITY_OUT,
        *[AVAILABILITY_LOW] * 5,
        *[AVAILABILITY_IN_STOCK] * 3,
    ]


async def test_an_order_through_all_its_steps_and_its_answers_joined_to_their_commands(
    stock: InventoryServiceStub, orders: Stage
) -> None:
    await count(stock, A=7, B=1)
    (asked,) = await orders.send(reserve("o", A=2, B=1))
    await orders.answered(StockReserved)
    answer = next(e for e in orders.heard if isinstance(e.payload, StockReserved))
    assert follows(answer, asked)
    assert await units(stock, "A") == (7, 2)
    await orders.send(CommitStock(order_id="o"))
    await orders.answered(StockCommitted)
    assert await units(stock, "A") == (5, 0)
    await orders.send(ReleaseStock(order_id="o"))
    await orders.answered(StockReleased)
    assert await units(stock, "A") == (7, 0)
    await orders.send(reserve("late", B=2), reserve("o", A=1))
    await orders.answered(StockRejected, 2)
    rejected = {r.order_id: list(r.shortages) for r in orders.answers(StockRejected)}
    assert rejected == {"late": [Shortage(sku="B", wanted=2, available=1)], "o": []}
    flips = [(e.payload.version, e.causation_id) for e in orders.heard
             if isinstance(e.payload, StockAvailabilityChanged) and e.payload.sku == "A"]  # fmt: skip
    assert [version for version, _ in flips] == [1, 2, 3]
    assert flips[1][1] == asked.id


async def test_a_repeated_command_is_answered_again_and_does_nothing(
    stock: InventoryServiceStub, orders: Stage, db: asyncpg.Connection
) -> None:
    await count(stock, A=7, B=0)
    restock = RestockStock(order_id="o", operation_id="r1", lines=[ReservationLine(sku="A", quantity=1)])
    commands = [
        (reserve("o", A=2), StockReserved),
        (reserve("short", A=1, B=1), StockRejected),
        (CommitStock(order_id="o"), StockCommitted),
        (ReleaseStock(order_id="never heard of"), StockReleased),
        (restock, StockRestocked),
    ]
    for times in (1, 2):
        for command, answer in commands:
            await orders.send(command)
            await orders.answered(answer, times)
    first, second = orders.answers(StockRejected)
    assert first == second
    first, second = orders.answers(StockRestocked)
    assert first == second
    assert (first.operation_id, first.allocations[0].quantity) == ("r1", 1)
    assert await units(stock, "A") == (6, 0)
    assert await db.fetchval("SELECT count(*) FROM movements WHERE order_id IS NOT NULL") == 3
    assert await db.fetch(FAULTS) == []


async def test_units_that_come_back_and_a_release_put_everything_back_once_in_either_order(
    stock: InventoryServiceStub, orders: Stage, db: asyncpg.Connection
) -> None:
    await count(stock, A=10)
    for order_id in ("first", "last"):
        for step in (reserve(order_id, A=3), CommitStock(order_id=order_id)):
            await orders.send(step)
    await orders.answered(StockCommitted, 2)
    assert await units(stock, "A") == (4, 0)
    back = [
        RestockStock(order_id=order_id, operation_id="r1", lines=[ReservationLine(sku="A", quantity=2)])
        for order_id in ("first", "last")
    ]
    await orders.send(back[0])
    await orders.answered(StockRestocked)
    await orders.send(ReleaseStock(order_id="first"), ReleaseStock(order_id="last"))
    await orders.answered(StockReleased, 2)
    await orders.send(*back)
    await orders.answered(StockRestocked, 3)
    assert await units(stock, "A") == (10, 0)
    assert await db.fetch(FAULTS) == []


async def test_a_bad_command_holds_up_no_other(stock: InventoryServiceStub, orders: Stage) -> None:
    await count(stock, A=9)
    await orders.send(
        reserve("good", A=1),
        CommitStock(order_id="never reserved"),
        ReserveStock(order_id="none", lines=[ReservationLine(sku="A", quantity=-5)]),
        ReserveStock(order_id="nul", lines=[ReservationLine(sku="A\0", quantity=1)]),
        ReserveStock(order_id="nul\0", lines=[ReservationLine(sku="A", quantity=1)]),
        ReserveStock(order_id="twice", lines=[ReservationLine(sku="A", quantity=1)] * 2),
        RestockStock(order_id="nameless", lines=[ReservationLine(sku="A", quantity=1)]),
        RestockStock(order_id="never took", operation_id="r1", lines=[ReservationLine(sku="A", quantity=1)]),
        reserve("better", A=1),
    )
    await orders.answered(StockReserved, 2)
    assert await units(stock, "A") == (9, 2)
