"""What sells, told by order events, in products and in ListTrendingProducts."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from google.type.money_pb2 import Money
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ARCHIVED
from polymart.inventory.v1.stock_pb2 import AVAILABILITY_IN_STOCK
from polymart.order.v1.events_pb2 import OrderConfirmed
from polymart.order.v1.order_pb2 import OrderLine
from polymart.search.v1 import search_service_pb2 as pb

from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.publisher import Publisher
from chassis.rpc.paging import PageToken, fingerprint
from devstack.engine import Engine as Server
from search_svc.adapters.mappings import PRODUCTS
from search_svc.adapters.popularity_documents import POPULARITY, SALES
from search_svc.domain.popularity import popularity_of
from tests.conftest import until
from tests.integration.search.support import (
    LIMIT,
    TOKEN_KEY,
    Search,
    cancelled,
    confirmed,
    deleted,
    placed,
    product,
    refusal,
    stocked,
    updated,
)

StartSearch = Callable[..., Awaitable[Search]]


async def shown(search: Search, *product_ids: str) -> dict[str, float]:
    """The popularity in the products' documents."""
    found = await search.engine.client.mget(index=PRODUCTS, ids=product_ids, realtime=True)
    return {item["_id"]: item["_source"].get("popularity", 0) for item in found["docs"] if item.get("found")}


async def shows(search: Search, **units: int) -> None:
    """Wait until products have the popularity of so many units."""
    wanted = {key: popularity_of(count) for key, count in units.items()}

    async def there() -> bool:
        return await shown(search, *wanted) == wanted

    await until(there, 20)


async def test_what_sells_most_comes_first_with_its_units(search: Search) -> None:
    await search.publish(
        placed("mugs", "Home", "Mugs"),
        *updated(
            product("a", "Mug", brand="Acme", category_id="mugs", price="3.00"),
            *(product(key, "Fork") for key in "bcdefg"),
        ),
        stocked("sku-a"),
    )
    await search.publish_only(
        confirmed("1", a=2, b=2),
        confirmed("2", a=1, c=2, d=9, e=9),
        confirmed("3", a=100, c=1),
        cancelled("3"),
        cancelled("4"),
        confirmed("4", b=50),
        cancelled("5"),
        confirmed("6", nowhere=70, f=1),
    )
    await search.publish(deleted("d", 2), *updated(product("e", version=2, status=PRODUCT_STATUS_ARCHIVED)))
    await search.handled()
    assert await search.trending() == [("a", 3), ("b", 2), ("c", 2), ("f", 1)]
    assert await search.trending(category="Home") == [("a", 3)]
    assert await search.trending(category="Mugs") == []
    answer = await search.stub.ListTrendingProducts(pb.ListTrendingProductsRequest(page_size=1), timeout=LIMIT)
    assert list(answer.products) == [
        pb.TrendingProduct(
            product_id="a", name="Mug", brand="Acme", category_path=["Home", "Mugs"], units=3,
            price_from=Money(currency_code="GBP", units=3), availability=AVAILABILITY_IN_STOCK,
        )
    ]  # fmt: skip
    week = datetime.now(UTC) - timedelta(days=7) - answer.since.ToDatetime(UTC)
    assert timedelta(0) <= week < timedelta(seconds=LIMIT)
    await shows(search, a=3, b=2, c=2, e=9, f=1, g=0)
    # What comes later than its sales has them as well.
    await search.publish(*updated(product("nowhere", "Spoon")), *updated(product("d", "Fork", version=3)))
    await search.handled()
    assert await shown(search, "nowhere", "d") == {"nowhere": popularity_of(70), "d": popularity_of(9)}
    assert (await search.trending())[:2] == [("nowhere", 70), ("d", 9)]
    assert await search.dead_letters() == 0


async def test_an_order_counts_once_however_often_and_from_wherever_it_comes(search: Search) -> None:
    await search.publish(*updated(product("a"), product("b")))
    events = [confirmed(f"{n}", a=n, b=1) for n in range(1, 21)] + [cancelled("20")]
    first = await search.publish_only(*events)
    await search.handled()
    wanted = [("a", sum(range(1, 20))), ("b", 19)]
    assert await search.trending() == wanted
    # With message ids of their own, and as replays of the very same messages.
    await search.publish_only(*random.sample(events, len(events)))
    await search.nats.js.delete_stream("EVT_ORDER")
    await ensure_topology(search.nats)
    await Publisher(search.nats).send(random.sample(first, len(first)))
    await search.handled()
    assert await search.trending() == wanted


async def test_orders_of_before_the_window_do_not_count(search: Search) -> None:
    await search.publish(*updated(product("a")))
    await search.handled()
    now = datetime.now(UTC)
    for order_id, age in (("old", timedelta(days=7, minutes=1)), ("new", timedelta(days=7, minutes=-1))):
        payload = confirmed(order_id, a=4)
        envelope = Envelope.new(payload, aggregate_id=order_id, source="test", now=now - age)
        await Publisher(search.nats).send([envelope])
    await search.handled()
    assert await search.trending() == [("a", 4)]
    assert not await search.engine.client.exists(index=SALES, id="old")


async def test_a_line_without_its_product_counts_for_the_one_that_has_the_sku(search: Search) -> None:
    await search.publish(*updated(product("old", "Mug", "S"), product("old", "Mug", "T", version=2)))
    lines = [OrderLine(sku="S", quantity=3), OrderLine(sku="unknown", quantity=8)]
    await search.publish_only(OrderConfirmed(order_id="1", lines=lines))
    await search.handled()
    assert await search.trending() == []
    await search.publish(*updated(product("new", "Mug", "S")))
    await search.handled()
    assert await search.trending() == [("new", 3)]
    await shows(search, new=3, old=0)


async def test_pages_cover_every_product_once_while_the_window_stands(search: Search) -> None:
    await search.publish(*updated(*(product(f"p{n:02}") for n in range(30))))
    await search.publish_only(confirmed("1", **{f"p{n:02}": 1 + n % 3 for n in range(30)}))
    await search.handled()
    whole = await search.trending(page_size=100)
    assert whole == sorted(((f"p{n:02}", 1 + n % 3) for n in range(30)), key=lambda each: (-each[1], each[0]))
    found, request, starts = [], pb.ListTrendingProductsRequest(page_size=7), set()
    while True:
        page = await search.stub.ListTrendingProducts(request, timeout=LIMIT)
        found += [(each.product_id, each.units) for each in page.products]
        starts.add(page.since.ToMilliseconds())
        request.page_token = page.next_page_token
        if not request.page_token:
            break
        assert len(page.products) == 7
    assert found == whole
    assert len(starts) == 1


async def test_every_fault_of_a_request_is_named(search: Search) -> None:
    await search.publish_only(confirmed("1", a=1, b=1))
    await search.publish(*updated(product("a"), product("b")))
    await search.handled()
    await search.trending()
    bad = pb.ListTrendingProductsRequest(category="x" * 10_000, page_size=-1, page_token="no")
    assert await refusal(search.stub.ListTrendingProducts(bad, timeout=LIMIT)) == (
        "INVALID_ARGUMENT", {"category", "page_size", "page_token"},
    )  # fmt: skip
    asked = pb.ListTrendingProductsRequest(page_size=1)
    token = (await search.stub.ListTrendingProducts(asked, timeout=LIMIT)).next_page_token
    tokens = [token[:-3], PageToken.encode({}, fingerprint(asked), TOKEN_KEY)]
    tokens += [
        PageToken.encode(position, fingerprint(asked), TOKEN_KEY)
        for position in ({"since": 10**30, "units": 1, "id": "a"}, {"since": "1", "units": 1, "id": "a"})
    ]
    for each in tokens:
        request = pb.ListTrendingProductsRequest(page_size=1, page_token=each)
        assert await refusal(search.stub.ListTrendingProducts(request, timeout=LIMIT)) == (
            "INVALID_ARGUMENT", {"page_token"},
        )  # fmt: skip
    foreign = pb.ListTrendingProductsRequest(category="Home", page_token=token)
    assert await refusal(search.stub.ListTrendingProducts(foreign, timeout=LIMIT)) == (
        "INVALID_ARGUMENT", {"page_token"},
    )  # fmt: skip


async def test_an_engine_that_lost_everything_has_the_same_sums_again(
    start_search: StartSearch, own_engine: Server
) -> None:
    replicas = [await start_search(own_engine.url) for _ in range(2)]
    search = replicas[0]
    await search.publish(*updated(*(product(f"p{n}") for n in range(5))))
    events = [confirmed(f"{n}", **{f"p{n % 5}": n, "p0": 1}) for n in range(1, 1_201)]
    await search.publish_only(*events, *(cancelled(f"{n}") for n in range(1, 1_201, 7)))
    await search.handled()
    wanted = await search.trending()
    units = dict(wanted)
    assert units["p1"] == sum(n for n in range(1, 1_201) if n % 5 == 1 and n % 7 != 1)
    await shows(search, **units)

    await own_engine.kill()
    # Some more that nobody can handle.
    await search.publish_only(confirmed("late", p4=10_000))
    await own_engine.restart()
    units["p4"] += 10_000
    for replica in replicas:
        await until(replica.serving, 20)
    await shows(search, **units)
    await search.handled()
    for replica in replicas:
        assert dict(await replica.trending()) == units
    assert await search.dead_letters() == 0


async def test_the_orders_alone_are_read_again_where_they_alone_were_lost(search: Search) -> None:
    await search.publish(*updated(product("a"), product("b")))
    await search.publish_only(confirmed("1", a=3), confirmed("2", b=1), cancelled("2"))
    await search.handled()
    await shows(search, a=3, b=0)
    for alias in (SALES, POPULARITY):
        await search.engine.client.indices.delete(index=f"{alias}-*")

        async def again(alias: str = alias) -> bool:
            return bool(await search.engine.client.indices.exists_alias(name=alias))

        await until(again)
        await search.publish_only(confirmed(alias, b=1))
        await search.handled()

        async def counted() -> bool:
            return (await search.trending())[0] == ("a", 3)

        await until(counted)
    assert await search.trending() == [("a", 3), ("b", 2)]
    await shows(search, a=3, b=2)


async def test_an_engine_that_dies_under_load_ends_with_every_order_counted_once(
    start_search: StartSearch, own_engine: Server, fresh_nats: Nats
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    replicas = [await start_search(own_engine.url) for _ in range(2)]
    search = replicas[0]
    await search.publish(*updated(*(product(f"p{n}") for n in range(8))))
    units, sent, number = Counter[str](), list[Message](), 0
    for _ in range(2):
        for _ in range(40):
            batch = []
            for _ in range(5):
                number += 1
                order = {f"p{chance.randrange(8)}": chance.randint(1, 9) for _ in range(2)}
                batch.append(confirmed(f"o{number}", **order))
                if chance.randrange(6) == 0:
                    batch.append(cancelled(f"o{number}"))
                else:
                    units.update(order)
            batch += chance.choices(sent, k=2) if sent else []
            chance.shuffle(batch)
            await search.publish_only(*batch)
            sent += batch
        await own_engine.kill()
        await own_engine.restart()
    for replica in replicas:
        await until(replica.serving, 20)
    await shows(search, **units)
    await search.handled()
    for replica in replicas:
        assert dict(await replica.trending(page_size=100)) == dict(units)
    assert await search.dead_letters() == 0
