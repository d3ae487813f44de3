"""Stock at several locations, over the API and by commands, and what an operator is told of it."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from polymart.inventory.v1 import inventory_service_pb2 as pb
from polymart.inventory.v1.commands_pb2 import CommitStock, ReleaseStock
from polymart.inventory.v1.events_pb2 import (
    StockAvailabilityChanged,
    StockCommitted,
    StockRanLow,
    StockRejected,
    StockReleased,
    StockReserved,
    StockRestocked,
)
from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from polymart.inventory.v1.location_pb2 import Location
from polymart.inventory.v1.movement_pb2 import (
    MOVEMENT_KIND_ADJUST,
    MOVEMENT_KIND_COMMIT,
    MOVEMENT_KIND_COUNT,
    MOVEMENT_KIND_RECEIVE,
    MOVEMENT_KIND_RESERVE,
    MOVEMENT_KIND_RESTOCK,
)
from polymart.inventory.v1.reservation_pb2 import Allocation
from polymart.inventory.v1.stock_pb2 import AVAILABILITY_IN_STOCK, AVAILABILITY_OUT

from chassis.rpc.paging import PageToken, fingerprint
from ops.stock import all_locations
from tests.integration.inventory.support import FAULTS, Stage, count, reason_of, reserve, units, violations_of


async def locate(stock: InventoryServiceStub, **priorities: int) -> None:
    for name, priority in priorities.items():
        request = pb.CreateLocationRequest(location=Location(location_id=name, priority=priority))
        await stock.CreateLocation(request, timeout=5)


async def places(stock: InventoryServiceStub, sku: str) -> dict[str, tuple[int, int]]:
    """On hand and reserved by location."""
    level = await stock.GetStock(pb.GetStockRequest(sku=sku), timeout=5)
    return {at.location_id: (at.on_hand, at.reserved) for at in level.locations}


def returned(order_id: str, location: str = "", **quantities: int) -> pb.RestockStockRequest:
    lines = [pb.ReturnedLine(sku=sku, quantity=quantity) for sku, quantity in quantities.items()]
    return pb.RestockStockRequest(order_id=order_id, lines=lines, location_id=location, request_id=str(uuid4()))


async def test_locations_are_listed_by_priority_page_by_page(stock: InventoryServiceStub) -> None:
    await locate(stock, north=5, attic=-1, annex=5)
    request, found = pb.ListLocationsRequest(page_size=2), []
    while True:
        page = await stock.ListLocations(request, timeout=5)
        found += [location.location_id for location in page.locations]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == ["attic", "main", "annex", "north"]


async def test_the_command_lists_all_locations(stock: InventoryServiceStub, db: asyncpg.Connection) -> None:
    names = [f"shop-{n:04}" for n in range(1_001)]
    await db.execute(
        "INSERT INTO locations (location_id, display_name, priority) SELECT name, name, 9 FROM unnest($1::text[]) name",
        names,
    )
    assert [location.location_id for location in await all_locations(stock)] == ["main", *names]


async def test_a_location_is_created_once_and_changed_by_mask_and_etag(stock: InventoryServiceStub) -> None:
    request = pb.CreateLocationRequest(location=Location(location_id="north", display_name="North", priority=2))
    made = await stock.CreateLocation(request, timeout=5)
    assert await stock.CreateLocation(request, timeout=5) == made
    request.location.priority = 3
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.CreateLocation(request, timeout=5)
    assert (failure.value.code(), reason_of(failure.value)) == (grpc.StatusCode.ALREADY_EXISTS, "LOCATION_EXISTS")

    change = Location(location_id="north", etag=made.etag)
    update = pb.UpdateLocationRequest(location=change, update_mask=FieldMask(paths=["priority"]))
    changed = await stock.UpdateLocation(update, timeout=5)
    assert (changed.display_name, changed.priority) == ("North", 0)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.UpdateLocation(update, timeout=5)
    assert (failure.value.code(), reason_of(failure.value)) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    update.location.location_id = "nowhere"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.UpdateLocation(update, timeout=5)
    assert reason_of(failure.value) == "LOCATION_NOT_FOUND"


async def test_an_order_is_served_by_one_location_or_else_by_priority(
    stock: InventoryServiceStub, orders: Stage, db: asyncpg.Connection
) -> None:
    await locate(stock, north=-1, attic=7)
    await count(stock, A=3, B=3)
    await count(stock, "north", A=1)
    await count(stock, "attic", A=2)
    await orders.send(reserve("whole", A=2, B=1))
    await orders.answered(StockReserved)
    await orders.send(reserve("split", A=4))
    await orders.answered(StockReserved, 2)
    whole, split = orders.answers(StockReserved)
    assert list(whole.allocations) == [
        Allocation(sku="A", location_id="main", quantity=2),
        Allocation(sku="B", location_id="main", quantity=1),
    ]
    assert {a.location_id: a.quantity for a in split.allocations} == {"north": 1, "main": 1, "attic": 2}
    assert await places(stock, "A") == {"attic": (2, 2), "main": (3, 3), "north": (1, 1)}
    await orders.send(CommitStock(order_id="split"), ReleaseStock(order_id="whole"))
    await orders.answered(StockCommitted)
    await orders.answered(StockReleased)
    assert await places(stock, "A") == {"attic": (0, 0), "main": (2, 0), "north": (0, 0)}
    assert await db.fetch(FAULTS) == []


async def test_safety_stock_is_kept_from_orders_and_low_stock_is_told(
    stock: InventoryServiceStub, orders: Stage
) -> None:
    await locate(stock, north=1)
    await count(stock, A=6)
    await count(stock, "north", A=6)
    settings = [pb.StockSettings(sku="A", safety_stock=4, low_stock=2)]
    (level,) = (await stock.ConfigureStock(pb.ConfigureStockRequest(settings=settings), timeout=5)).levels
    assert (level.available, level.safety_stock, level.low_stock) == (8, 4, 2)
    assert level.availability == AVAILABILITY_IN_STOCK
    await orders.send(reserve("too much", A=9))
    await orders.answered(StockRejected)
    assert [s.available for s in orders.answers(StockRejected)[0].shortages] == [8]
    await orders.send(reserve("all", A=8))
    await orders.answered(StockReserved)
    await orders.answered(StockRanLow)
    assert orders.answers(StockRanLow) == [StockRanLow(sku="A", available=0, low_stock=2, version=2)]
    assert orders.answers(StockAvailabilityChanged)[-1].availability == AVAILABILITY_OUT
    settings = [pb.StockSettings(sku="A", safety_stock=0), pb.StockSettings(sku="B", low_stock=0)]
    levels = (await stock.ConfigureStock(pb.ConfigureStockRequest(settings=settings), timeout=5)).levels
    assert [(x.sku, x.available, x.low_stock) for x in levels] == [("A", 4, 2), ("B", 0, 0)]


async def test_received_units_and_a_move_between_locations(stock: InventoryServiceStub) -> None:
    await locate(stock, north=1)
    receipts = [pb.StockReceipt(sku="A", quantity=4), pb.StockReceipt(sku="A", quantity=2, location_id="north")]
    received = pb.ReceiveStockRequest(receipts=receipts, reference="note 17", request_id=str(uuid4()))
    for _ in range(2):
        (level,) = (await stock.ReceiveStock(received, timeout=5)).levels
        assert level.on_hand == 6
    moved = [
        pb.StockAdjustment(sku="A", delta=-3, reason="to the north"),
        pb.StockAdjustment(sku="A", delta=3, reason="from main", location_id="north"),
    ]
    request = pb.AdjustStockRequest(adjustments=moved, request_id=str(uuid4()))
    await asyncio.gather(*(stock.AdjustStock(request, timeout=5) for _ in range(10)))
    assert await places(stock, "A") == {"main": (1, 0), "north": (5, 0)}
    request.request_id = str(uuid4())
    with pytest.raises(grpc.aio.AioRpcError, match="A would have -2 with 0 reserved"):
        await stock.AdjustStock(request, timeout=5)
    assert await places(stock, "A") == {"main": (1, 0), "north": (5, 0)}


async def test_a_return_is_put_back_once_and_never_more_than_was_sold(
    stock: InventoryServiceStub, orders: Stage, db: asyncpg.Connection
) -> None:
    await locate(stock, attic=9)
    await count(stock, A=5, B=2)
    await orders.send(reserve("o", A=3, B=1))
    await orders.answered(StockReserved)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.RestockStock(returned("o", A=1), timeout=5)
    assert reason_of(failure.value) == "NOTHING_TAKEN"
    await orders.send(CommitStock(order_id="o"))
    await orders.answered(StockCommitted)

    request = returned("o", A=2)
    shouted = pb.RestockStockRequest()
    shouted.CopyFrom(request)
    shouted.request_id = request.request_id.upper()
    await asyncio.gather(*(stock.RestockStock(r, timeout=5) for r in [request, shouted] * 5))
    assert await units(stock, "A") == (4, 0)
    await orders.answered(StockRestocked, 10)
    told = StockRestocked(order_id="o", operation_id=request.request_id)
    told.allocations.append(Allocation(sku="A", location_id="main", quantity=2))
    assert orders.answers(StockRestocked) == [told] * 10

    for wrong, reason in (
        (returned("o", A=2), "RETURN_EXCEEDS_ORDER"),
        (returned("o", C=1), "RETURN_EXCEEDS_ORDER"),
        (returned("o", "cellar", A=1), "LOCATION_NOT_FOUND"),
        (returned("never placed", A=1), "NOTHING_TAKEN"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stock.RestockStock(wrong, timeout=5)
        assert reason_of(failure.value) == reason
    request.lines[0].quantity = 1
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stock.RestockStock(request, timeout=5)
    assert (failure.value.code(), reason_of(failure.value)) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")

    levels = (await stock.RestockStock(returned("o", "attic", B=1, A=1), timeout=5)).levels
    assert [(level.sku, level.on_hand) for level in levels] == [("B", 2), ("A", 5)]
    assert await places(stock, "A") == {"attic": (1, 0), "main": (4, 0)}
    await orders.send(ReleaseStock(order_id="o"))
    await orders.answered(StockReleased)
    assert await units(stock, "A") == (5, 0)
    assert await db.fetch(FAULTS) == []


async def test_open_reservations_are_listed_the_oldest_first(
    stock: InventoryServiceStub, orders: Stage, db: asyncpg.Connection
) -> None:
    await count(stock, A=50, B=50)
    await orders.send(*(reserve(f"o{n}", A=1) for n in range(5)), reserve("both", A=1, B=2), reserve("done", B=1))
    await orders.answered(StockReserved, 7)
    await orders.send(CommitStock(order_id="done"))
    await orders.answered(StockCommitted)
    hours = "UPDATE holds SET created_at = now() - interval '1 hour' * $2 WHERE order_id = $1"
    await db.executemany(hours, [("o3", 3), ("o1", 3), ("both", 2)])

    async def listed(**asked: object) -> list[str]:
        request, found = pb.ListReservationsRequest(page_size=2, **asked), []
        while True:
            page = await stock.ListReservations(request, timeout=5)
            assert len(page.reservations) <= 2
            found += [r.order_id for r in page.reservations]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    everything = await listed()
    assert everything[:3] == ["o1", "o3", "both"]
    assert sorted(everything[3:]) == ["o0", "o2", "o4"]
    assert await listed(created_before=datetime.now(UTC) - timedelta(hours=1)) == ["o1", "o3", "both"]
    assert await listed(sku="B") == ["both"]
    (one,) = (await stock.ListReservations(pb.ListReservationsRequest(sku="B"), timeout=5)).reservations
    assert [(a.sku, a.location_id, a.quantity) for a in one.allocations] == [("A", "main", 1), ("B", "main", 2)]
    assert abs(one.create_time.ToDatetime(UTC) - (datetime.now(UTC) - timedelta(hours=2))) < timedelta(minutes=1)


async def test_every_movement_is_listed_with_its_reason_the_newest_first(
    stock: InventoryServiceStub, orders: Stage
) -> None:
    await locate(stock, north=1)
    await count(stock, A=5)
    lost = [pb.StockAdjustment(sku="A", delta=-1, reason="broken")]
    await stock.AdjustStock(pb.AdjustStockRequest(adjustments=lost, request_id=str(uuid4())), timeout=5)
    came = [pb.StockReceipt(sku="A", quantity=9, location_id="north")]
    await stock.ReceiveStock(
        pb.ReceiveStockRequest(receipts=came, reference="note 17", request_id=str(uuid4())), timeout=5
    )
    await orders.send(reserve("o", A=2))
    await orders.answered(StockReserved)
    await orders.send(CommitStock(order_id="o"))
    await orders.answered(StockCommitted)
    back = returned("o", "north", A=1)
    await stock.RestockStock(back, timeout=5)

    request, found = pb.ListMovementsRequest(sku="A", page_size=4), []
    while True:
        page = await stock.ListMovements(request, timeout=5)
        found += [(m.kind, m.location_id, m.on_hand_delta, m.reserved_delta, m.order_id, m.reason)
                  for m in page.movements]  # fmt: skip
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == [
        (MOVEMENT_KIND_RESTOCK, "north", 1, 0, "o", ""),
        (MOVEMENT_KIND_COMMIT, "main", -2, -2, "o", ""),
        (MOVEMENT_KIND_RESERVE, "main", 0, 2, "o", ""),
        (MOVEMENT_KIND_RECEIVE, "north", 9, 0, "", "note 17"),
        (MOVEMENT_KIND_ADJUST, "main", -1, 0, "", "broken"),
        (MOVEMENT_KIND_COUNT, "main", 5, 0, "", ""),
    ]
    north = await stock.ListMovements(pb.ListMovementsRequest(sku="A", location_id="north"), timeout=5)
    assert [m.on_hand_delta for m in north.movements] == [1, 9]
    assert north.movements[0].operation_id == back.request_id


async def test_a_page_holds_no_more_than_an_answer_may(stock: InventoryServiceStub, db: asyncpg.Connection) -> None:
    await db.execute("INSERT INTO holds SELECT 'o' || n, 'RESERVED' FROM generate_series(1, 25) n")
    await db.execute(
        "INSERT INTO reservations SELECT 'o' || n, 's' || s, repeat('x', 64), 1 "
        "FROM generate_series(1, 25) n, generate_series(1, 1000) s"
    )
    request, sizes = pb.ListReservationsRequest(page_size=500), []
    while not sizes or request.page_token:
        page = await stock.ListReservations(request, timeout=10)
        sizes.append(len(page.reservations))
        request.page_token = page.next_page_token
    assert sizes == [10, 10, 5]


@pytest.mark.parametrize("position", [{}, {"at": "soon", "order": "o"}, {"below": 2**70}, {"priority": 2**40, "id": ""},
                                      {"at": "2026-01-01T00:00:00+00:00", "order": "nul\0"}])  # fmt: skip
async def test_a_made_up_page_token_is_refused(stock: InventoryServiceStub, position: dict[str, str | int]) -> None:
    for call, request in (
        (stock.ListReservations, pb.ListReservationsRequest()),
        (stock.ListMovements, pb.ListMovementsRequest(sku="A")),
        (stock.ListLocations, pb.ListLocationsRequest()),
    ):
        request.page_token = PageToken.encode(position, fingerprint(request)) if position else "no token"
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call(request, timeout=5)
        assert violations_of(failure.value) == {"page_token"}


async def test_an_unknown_location_is_refused_whole(stock: InventoryServiceStub, db: asyncpg.Connection) -> None:
    counts = [pb.StockCount(sku="A", on_hand=1), *(pb.StockCount(sku="A", location_id=f"no{n}") for n in range(2))]
    with pytest.raises(grpc.aio.AioRpcError, match="no such location: no0, no1") as failure:
        await stock.SetStock(pb.SetStockRequest(counts=counts), timeout=5)
    assert (failure.value.code(), reason_of(failure.value)) == (grpc.StatusCode.NOT_FOUND, "LOCATION_NOT_FOUND")
    assert await db.fetchval("SELECT count(*) FROM items") == 0


async def test_every_fault_of_a_request_about_locations_is_named(stock: InventoryServiceStub) -> None:
    at_nowhere = [pb.StockCount(sku="A", location_id=name) for name in ("x" * 65, "nul\0", "main", "")]
    negative = [pb.StockReceipt(sku="A", quantity=-1), pb.StockReceipt(sku="A"), pb.StockReceipt(quantity=10**13)]
    settings = [pb.StockSettings(sku="A", safety_stock=-1), pb.StockSettings(sku="A", low_stock=10**13)]
    long = "x" * 201
    calls = [
        (
            stock.SetStock(pb.SetStockRequest(counts=at_nowhere), timeout=5),
            {"counts[0].location_id", "counts[1].location_id", "counts[3].sku"},
        ),
        (
            stock.ReceiveStock(pb.ReceiveStockRequest(receipts=negative, reference=long), timeout=5),
            {"request_id", "reference", "receipts[0].quantity", "receipts[1].quantity", "receipts[1].sku"}
            | {"receipts[2].quantity", "receipts[2].sku"},
        ),
        (
            stock.ConfigureStock(pb.ConfigureStockRequest(settings=settings, request_id="no uuid"), timeout=5),
            {"request_id", "settings[0].safety_stock", "settings[1].sku", "settings[1].low_stock"},
        ),
        (
            stock.RestockStock(pb.RestockStockRequest(lines=[pb.ReturnedLine(sku="A")]), timeout=5),
            {"order_id", "request_id", "lines[0].quantity"},
        ),
        (stock.ListMovements(pb.ListMovementsRequest(), timeout=5), {"sku"}),
        (
            stock.CreateLocation(pb.CreateLocationRequest(location=Location(display_name=long)), timeout=5),
            {"location.location_id", "location.display_name"},
        ),
        (
            stock.UpdateLocation(
                pb.UpdateLocationRequest(
                    location=Location(location_id="main"), update_mask=FieldMask(paths=["etag", "colour"])
                ),
                timeout=5,
            ),
            {"update_mask.paths[0]", "update_mask.paths[1]"},
        ),
    ]
    for call, fields in calls:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violations_of(failure.value) == fields
