"""SearchService over a real engine and broker, told by events as in production."""

import json
import math
import random
from collections.abc import Awaitable, Callable
from itertools import product as product_of
from typing import Any

from google.protobuf.message import Message
from google.type.money_pb2 import Money
from polymart.catalog.v1.events_pb2 import ProductCreated
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ARCHIVED, PRODUCT_STATUS_DRAFT, AttributeValue
from polymart.catalog.v1.product_type_pb2 import (
    ATTRIBUTE_KIND_NUMBER,
    ATTRIBUTE_KIND_TEXT,
    AttributeDefinition,
    ProductType,
)
from polymart.inventory.v1.stock_pb2 import AVAILABILITY_IN_STOCK, AVAILABILITY_LOW, AVAILABILITY_OUT
from polymart.search.v1 import search_service_pb2 as pb

from chassis.messaging.nats import ensure_topology
from chassis.messaging.publisher import Publisher
from chassis.rpc.paging import PageToken, fingerprint
from search_svc.adapters.mappings import PARTS, PRODUCTS
from tests.integration.search.support import (
    LIMIT,
    TOKEN_KEY,
    Peers,
    Search,
    deleted,
    placed,
    product,
    refusal,
    stocked,
    updated,
)


def facets(answer: pb.SearchProductsResponse) -> dict[str, list[tuple[str, int]]]:
    return {facet.name: [(v.value, v.count) for v in facet.values] for facet in answer.facets}


async def test_what_is_told_of_products_and_stock_is_found(search: Search) -> None:
    path = ["Home", "Lamps"]
    lamp = product(
        "lamp", "Desk <lamp>", "L1", "L2", brand="Acme", category_id="lamps", price="20.00", version=3,
        attributes={"colour": "black", "watts": 8.5, "dimmable": True},
    )  # fmt: skip
    await search.publish(ProductCreated(product=lamp), *updated(product("bulb", "Bulb", brand="Acme", price="2.00")))
    await search.publish(placed("lamps", *path), stocked("L2", AVAILABILITY_LOW), stocked("L1", AVAILABILITY_OUT))
    await search.handled()
    answer = await search.find("lamp", attribute_facets=["colour", "watts"])
    (hit,) = answer.hits
    assert hit.score > 0
    hit.score = 0
    assert hit == pb.SearchHit(
        product_id="lamp", name="Desk <lamp>", brand="Acme", category_path=path, availability=AVAILABILITY_LOW,
        price_from=Money(currency_code="GBP", units=20), highlight="Desk &lt;<em>lamp</em>&gt;", product_version=3,
        attributes={
            "colour": AttributeValue(text="black"),
            "watts": AttributeValue(number=8.5),
            "dimmable": AttributeValue(flag=True),
        },
    )  # fmt: skip
    assert (answer.total_size, answer.next_page_token) == (1, "")
    assert facets(answer) == {
        "brand": [("Acme", 1)],
        "category": [("Home", 1)],
        "price": [],
        "availability": [("LOW", 1)],
        "attributes.colour": [("black", 1)],
        "attributes.watts": [("8.5", 1)],
    }
    assert await search.ids() == ["bulb", "lamp"]
    assert await search.ids("lmap") == ["lamp"]
    status = await search.status()
    assert (status.products, status.products_in_stock, status.rebuilding) == (2, 1, False)
    assert status.index.startswith("products-")


async def test_filters_work_together_and_a_facet_keeps_its_other_values_on_offer(search: Search) -> None:
    def mug(key: str, brand: str, colour: str, price: str, **more: Any) -> Message:
        return updated(product(key, "Mug", key, brand=brand, price=price, attributes={"colour": colour}, **more))[0]

    await search.publish(
        mug("a", "Acme", "red", "1.00"), mug("b", "Acme", "blue", "2.00"), mug("c", "Zeta", "red", "3.00"),
        mug("d", "Zeta", "blue", "4.00"), mug("e", "Zeta", "red", "2.00", currency="USD"),
        *(stocked(key) for key in "abe"), stocked("c", AVAILABILITY_OUT),
    )  # fmt: skip
    await search.handled()
    red = pb.AttributeFilter(name="colour", values=["red"])
    answer = await search.find(filter=pb.SearchFilter(attributes=[red]), attribute_facets=["colour"])
    assert [hit.product_id for hit in answer.hits] == ["a", "c", "e"]
    assert facets(answer)["brand"] == [("Zeta", 2), ("Acme", 1)]
    assert facets(answer)["attributes.colour"] == [("red", 3), ("blue", 2)]

    two, three = Money(currency_code="GBP", units=2), Money(currency_code="GBP", units=3)
    price = pb.PriceRange(currency_code="GBP", min=two, max=three)
    assert await search.ids(filter=pb.SearchFilter(price=price)) == ["b", "c"]
    assert await search.ids(filter=pb.SearchFilter(price=pb.PriceRange(currency_code="GBP", min=three))) == ["c", "d"]
    assert await search.ids(filter=pb.SearchFilter(price=pb.PriceRange(currency_code="USD"))) == ["e"]
    assert await search.ids(filter=pb.SearchFilter(in_stock=True)) == ["a", "b", "e"]
    assert await search.ids("mug", filter=pb.SearchFilter(in_stock=True, brands=["Acme"], price=price)) == ["b"]
    dear = pb.SORT_ORDER_PRICE_DESC
    assert await search.ids(filter=pb.SearchFilter(price=pb.PriceRange(currency_code="GBP")), sort=dear) == [*"dcba"]


async def test_attributes_are_counted_as_product_types_define_them(
    start_search: Callable[..., Awaitable[Search]], fresh_search: str, peers: Peers
) -> None:
    weight = AttributeDefinition(name="weight", kind=ATTRIBUTE_KIND_NUMBER, unit="kg", facet=True)
    note = AttributeDefinition(name="note", kind=ATTRIBUTE_KIND_TEXT)
    peers.types.append(ProductType(product_type_id="t", name="Mug", attributes=[weight, note]))
    search = await start_search(fresh_search)
    mugs = (
        product(f"p{n:02}", "Mug", attributes={"weight": n / 2, "note": "ab"[n % 2], "colour": ["red", "blue"][n % 2]})
        for n in range(40)
    )
    await search.publish(*updated(*mugs))
    await search.handled()
    found = {facet.name: facet for facet in (await search.find("mug")).facets}
    assert list(found)[4:] == ["attributes.weight", "attributes.colour"]
    ranges = found["attributes.weight"]
    assert ranges.unit == "kg"
    assert sum(value.count for value in ranges.values) == 40
    for value in ranges.values:
        wanted = pb.AttributeFilter(name="weight", ranges=[value.number_range])
        answer = await search.find("mug", filter=pb.SearchFilter(attributes=[wanted]))
        assert answer.total_size == value.count
        # The others stay on offer.
        assert [each for each in answer.facets if each.name == "attributes.weight"] == [ranges]
    assert not (await search.find("mug", skip_facets=True)).facets


async def test_pages_cover_everything_once(search: Search) -> None:
    names = ["Red mug", "Red mug and a saucer", "Another red mug"]
    mugs = (product(f"p{n:02}", names[n % 3], price=f"{n % 7}.00") for n in range(50))
    await search.publish(*updated(*mugs, product("x", "Fork")))
    await search.handled()
    for text, sort in product_of(["", "red mug", "red mugg"], pb.SortOrder.values()):
        whole = await search.find(text, sort=sort, page_size=100)
        found, token = [], ""
        while True:
            page = await search.find(text, sort=sort, page_size=7, page_token=token)
            assert page.total_size == whole.total_size == (50 if text else 51)
            found += [hit.product_id for hit in page.hits]
            if not (token := page.next_page_token):
                break
            assert len(page.hits) == 7
        assert found == [hit.product_id for hit in whole.hits]
        assert len(set(found)) == whole.total_size


async def test_a_bad_page_token_is_the_caller_s_fault(search: Search) -> None:
    await search.publish(*updated(*(product(f"p{n}", "Red mug") for n in range(9))))
    await search.handled()
    asked = pb.SearchProductsRequest(text="mug", page_size=2)
    token = (await search.stub.SearchProducts(asked, timeout=LIMIT)).next_page_token
    assert token
    foreign = (await search.find("mug", page_size=2, sort=pb.SORT_ORDER_PRICE_ASC)).next_page_token
    flipped = token[:20] + ("A" if token[20] != "A" else "B") + token[21:]

    def forged(position: object, **more: str | int) -> str:
        return PageToken.encode({"after": json.dumps(position), "relaxed": 0, **more}, fingerprint(asked), TOKEN_KEY)

    bad = [
        "what?", token[:-3], token + "AAAA", flipped, foreign, "ü", "=",
        forged(None), forged([]), forged(["p1"]), forged([1.0, "p1"]), forged([-1.0, "p1", 1]), forged([1.0, "p1", 0]),
        forged([1e300, "p1", 1]), forged([math.inf, "p1", 1]), forged([math.nan, "p1", 1]), forged([True, "p1", 1]),
        forged({"a": 1}), forged("x"), forged([1.0, {}, 1]),
        *(PageToken.encode(each, fingerprint(asked), TOKEN_KEY) for each in ({"after": "no json"}, {"after": 7}, {})),
        PageToken.encode({"after": json.dumps([1.0, "p1", 1])}, fingerprint(asked)),
        PageToken.encode({"after": json.dumps([1.0, "p1", 1])}, fingerprint(asked), TOKEN_KEY + "!"),
    ]  # fmt: skip
    for each in bad:
        assert await refusal(search.find("mug", page_size=2, page_token=each)) == ("INVALID_ARGUMENT", {"page_token"})
    other = search.find("mugs", page_size=2, page_token=token)
    assert await refusal(other) == ("INVALID_ARGUMENT", {"page_token"})
    assert (await search.find("mug", page_size=3, page_token=token)).hits
    # Large, and right in form.
    assert (await search.find("mug", page_token=forged([1e-40, "p1", 10**12]))).next_page_token == ""


async def test_every_fault_of_a_request_is_named(search: Search) -> None:
    pounds, euros = Money(currency_code="GBP", units=5), Money(currency_code="EUR", units=-1)
    request: dict[str, Any] = {
        "text": "x" * 257,
        "page_size": -1,
        "sort": 9,
        "page_token": "no",
        "attribute_facets": ["a", "", "a"],
        "filter": pb.SearchFilter(
            brands=[""],
            categories=["c"] * 201,
            attributes=[
                pb.AttributeFilter(values=["v"]),
                pb.AttributeFilter(name="n"),
                pb.AttributeFilter(name="n", values=[""]),
            ],
            price=pb.PriceRange(currency_code="GBP", min=pounds, max=euros),
        ),
    }
    code, fields = await refusal(search.find(**request))
    assert code == "INVALID_ARGUMENT"
    assert fields == {
        "text", "page_size", "sort", "page_token", "attribute_facets[1]", "attribute_facets[2]",
        "filter.brands[0]", "filter.categories", "filter.attributes[0].name", "filter.attributes[1].values",
        "filter.attributes[2].name", "filter.attributes[2].values[0]",
        "filter.price.max.currency_code", "filter.price.max",
    }  # fmt: skip
    for price, field in [
        (pb.PriceRange(), "filter.price.currency_code"),
        (pb.PriceRange(currency_code="pounds"), "filter.price.currency_code"),
        (pb.PriceRange(currency_code="GBP", max=Money(currency_code="GBP", nanos=10**9)), "filter.price.max"),
        (
            pb.PriceRange(currency_code="GBP", min=pounds, max=Money(currency_code="GBP", units=4)),
            "filter.price.max",
        ),
    ]:
        assert await refusal(search.find(filter=pb.SearchFilter(price=price))) == ("INVALID_ARGUMENT", {field})


async def test_a_deleted_product_is_gone_and_no_late_update_brings_it_back(search: Search) -> None:
    old = updated(product("p", version=1), product("p", version=2))
    await search.publish(old[0])
    await search.handled()
    assert await search.ids("mug") == ["p"]
    await search.publish(deleted("p", 3))
    await search.handled()
    assert await search.ids("mug") == []
    await search.publish_only(*old, stocked("sku-p"))
    await search.handled()
    assert await search.ids() == []
    assert (await search.status()).products == 0
    await search.publish(*updated(product("p", "New mug", version=4)))
    await search.handled()
    (hit,) = (await search.find("mug")).hits
    assert (hit.name, hit.availability) == ("New mug", AVAILABILITY_IN_STOCK)


async def test_stock_known_before_the_product_counts_for_it(search: Search) -> None:
    await search.publish(stocked("s.1", AVAILABILITY_LOW, version=2))
    await search.handled()
    await search.publish(*updated(product("p", "Mug", "s.1")))
    await search.handled()
    assert [hit.availability for hit in (await search.find()).hits] == [AVAILABILITY_LOW]
    # A SKU that moves takes its stock along.
    await search.publish(*updated(product("p", "Mug", "s.2", version=2), product("q", "Cup", "s.1")))
    await search.handled()
    availability = {hit.product_id: hit.availability for hit in (await search.find()).hits}
    assert availability == {"p": AVAILABILITY_OUT, "q": AVAILABILITY_LOW}


async def test_a_document_that_the_engine_refuses_holds_up_no_other(search: Search) -> None:
    # A document's id has at most 512 bytes.
    refused = product("refused", "Mug", "x" * 600)
    wrong = product("wrong", "Mug")
    wrong.variants[0].price.currency_code = "pound"
    products = [product(f"p{n}", "Mug", price=f"{n}.00") for n in range(9)]
    await search.publish_only(*updated(*products[:3], refused, *products[3:6], wrong, *products[6:]), stocked("sku-p8"))
    await search.handled_but(2)
    assert sorted(await search.ids("mug")) == [f"p{n}" for n in range(9)]
    assert (await search.status()).products_in_stock == 1


def history(chance: random.Random) -> list[Message]:
    """What happened to a few products and SKUs, in the order it happened."""
    events: list[Message] = []
    for n in range(6):
        for version in range(1, chance.randint(2, 5)):
            if chance.random() < 0.2:
                events.append(deleted(f"p{n}", version))
            else:
                skus = chance.sample([f"s.{m}" for m in range(8)], chance.randint(1, 3))
                events += updated(product(f"p{n}", f"Mug {version}", *skus, version=version))
    for m in range(8):
        for version in range(1, chance.randint(1, 4)):
            level = chance.choice([AVAILABILITY_IN_STOCK, AVAILABILITY_LOW, AVAILABILITY_OUT])
            events.append(stocked(f"s.{m}", level, version))
    return events


async def test_any_order_and_any_repetition_give_the_same_index(
    start_search: Callable[..., Awaitable[Search]], fresh_search: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    first, second = await start_search(fresh_search), await start_search(fresh_search)
    for _ in range(3):
        events = history(chance)
        await first.publish_only(*events)
        await first.handled()
        in_order = await first.documents()
        await wipe(first)
        again = [*events, *chance.choices(events, k=20)]
        chance.shuffle(again)
        for begin in range(0, len(again), 9):
            await second.publish_only(*again[begin : begin + 9])
        await first.handled()
        assert await first.documents() == in_order
        await wipe(first)


async def wipe(search: Search) -> None:
    await search.engine.client.delete_by_query(
        index=f"{PRODUCTS},{PARTS}", query={"match_all": {}}, refresh=True, conflicts="proceed"
    )


async def test_streams_filled_anew_change_nothing(search: Search) -> None:
    chance = random.Random(7)
    await search.publish_only(*history(chance))
    await search.handled()
    before = await search.documents()
    for stream in ("EVT_CATALOG", "EVT_INVENTORY"):
        await search.nats.js.delete_stream(stream)
    await ensure_topology(search.nats)
    await Publisher(search.nats).send(chance.sample(search.sent, len(search.sent)))
    await search.handled()
    assert await search.documents() == before


async def test_the_products_of_a_category_follow_its_path_and_those_of_others_stay(search: Search) -> None:
    await search.publish(
        placed("lamps", "Home", "Lamps"),
        placed("chairs", "Home", "Chairs"),
        *updated(*(product(f"lamp{n:02}", "Lamp", category_id="lamps") for n in range(30))),
        *updated(product("chair", "Chair", category_id="chairs"), product("none", "Rug")),
    )
    await search.handled()
    assert len(await search.ids(filter=pb.SearchFilter(categories=["Home > Lamps"]), page_size=50)) == 30
    await search.publish(placed("lamps", "Light", version=5))
    await search.handled()
    assert len(await search.ids(filter=pb.SearchFilter(categories=["Light"]), page_size=50)) == 30
    assert await search.ids(filter=pb.SearchFilter(categories=["Home"])) == ["chair"]
    assert facets(await search.find())["category"] == [("Light", 30), ("Home", 1)]
    tree = facets(await search.find(filter=pb.SearchFilter(categories=["Home"])))["category"]
    assert tree == [("Home", 1), ("Home > Chairs", 1)]
    assert len(await search.ids("light", page_size=50)) == 30
    # News that are older, or come again, or before their products, change nothing or come right.
    before = await search.documents()
    await search.publish_only(placed("lamps", "Home", "Lamps", version=1), placed("lamps", "Light", version=5))
    await search.handled()
    assert await search.documents() == before
    await search.publish(placed("rugs", "Floor"), *updated(product("none", "Rug", category_id="rugs", version=2)))
    await search.handled()
    assert await search.ids(filter=pb.SearchFilter(categories=["Floor"])) == ["none"]


async def test_only_what_is_active_is_found_and_nothing_of_the_rest_is_lost(search: Search) -> None:
    await search.publish(*updated(*(product(key, f"{key} mug") for key in ("draft", "active", "archived"))))
    await search.publish(
        *updated(
            product("draft", "draft mug", version=2, status=PRODUCT_STATUS_DRAFT),
            product("archived", "archived mug", version=2, status=PRODUCT_STATUS_ARCHIVED),
        )
    )
    await search.handled()
    assert await search.ids("mug") == ["active"]
    assert (await search.status()).products == 1
    assert set((await search.documents())[PRODUCTS]) == {"draft", "active", "archived"}
    await search.publish(*updated(product("draft", "draft mug", version=3)))
    await search.handled()
    assert sorted(await search.ids("mug")) == ["active", "draft"]
