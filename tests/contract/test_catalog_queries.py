"""Every query of the catalog's stores has its index in MongoDB's terms: equality, sort, range.

That is checked on the shapes of the queries as they are sent and on the indexes as they are declared, whatever engine
answers; where it is a real MongoDB, its `explain` has to agree and say how much was read.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from pymongo import AsyncMongoClient

from catalog_svc.adapters.mongo import Mongo
from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.adapters.mongo_taxonomy import MongoTaxonomy
from catalog_svc.application.ports import Filter, Order, Position
from catalog_svc.application.taxonomy import category_for_path, tell_paths
from catalog_svc.domain.product import Details, Status, Variant, create, delete, revise
from catalog_svc.domain.product_type import ProductType
from chassis.clock import ManualClock
from chassis.ids import uuid7
from chassis.money import Money
from tests.contract.recorder import Recorder

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
# More than MongoDB merges scans of: from 201 on it sorts.
MANY = tuple(f"c{n}" for n in range(201))
MOST_SCANS = 200
PAGE = 10

Keys = list[tuple[str, int]]

_WHOLE = ("categories", "category_tree")
"""Read whole on purpose: the tree of categories is small, and its guard is one document."""


def details(sku: str, n: int) -> Details:
    return Details(
        name="Mug",
        brand="b" if n % 2 else "other",
        category_id=f"c{n * 7 % 210}" if n % 2 else "c0",
        product_type_id="t" if n % 3 else "other",
        status=Status.ACTIVE if n % 5 else Status.DRAFT,
        variants=(Variant(sku, Money("GBP", 1)),),
    )


async def use_everything(mongo: Mongo) -> None:
    products, taxonomy = MongoProducts(mongo), MongoTaxonomy(mongo)
    await products.migrate()
    await taxonomy.migrate()
    event = create(None, "p", Details(name="Mug", variants=(Variant("a", Money("GBP", 1)),)), etag="e", now=NOON)
    await products.save([event])
    changed = revise(event.product, Details(name="Cup", variants=(Variant("a", Money("GBP", 1)),)), etag="e", now=NOON)
    await products.save([changed])
    await products.save([delete(changed.product, now=NOON)])
    await products.save([changed])  # stale
    # More than a page to each filter, and of deleted ones.
    crowd = [
        create(None, f"{n:04}", details(f"s{n}", n), etag="e", now=NOON + timedelta(minutes=n % 7)) for n in range(120)
    ]
    await products.save(crowd)
    await products.save([delete(event.product, now=NOON) for event in crowd[:12]])
    await products.get(["p"])
    await products.requested("r")
    await products.holders(["a"])
    await products.variants(["a"])
    await products.revisions("p")
    async with products.trial() as trial:
        await trial.save([changed])
        await trial.get(["p"])
        await trial.holders(["a"])
    filters = product(((), ("c0",), MANY), ("", "t"), ("", "b"), (None, Status.ACTIVE), (None, NOON))
    for which, order, after in product(filters, Order, (None, Position("p", NOON))):
        await products.page(Filter(*which), order, after, PAGE)
    for include_deleted, start in product((False, True), ("", "p")):
        _ = [batch async for batch in products.stream(include_deleted=include_deleted, after=start)]
    clock = ManualClock(NOON)
    await category_for_path(["A", "B"], categories=taxonomy, clock=clock, new_id=uuid7)
    await tell_paths(categories=taxonomy)
    type_ = ProductType("t", "T", (), 1, "e", NOON, NOON)
    await taxonomy.save_type(type_)
    await taxonomy.types(["t"])
    await taxonomy.type_page("", 10)
    for outbox in (products.outbox, taxonomy.outbox):
        await outbox.backlog()
        await outbox.remove(await outbox.pending(10))


async def test_every_query_has_its_index_and_no_more_is_read_than_it_needs(
    empty_mongo: Mongo, recorder: Recorder
) -> None:
    await use_everything(empty_mongo)
    recorder.on = False
    client: Any = AsyncMongoClient(empty_mongo.url)
    used: set[str] = set()
    try:
        real = "secantusVersion" not in await client.admin.command("buildInfo")
        declared: dict[str, dict[str, Keys]] = {}
        for database, query in _queries(recorder.commands):
            name = query["find"]
            if name in _WHOLE and not query.get("filter"):
                continue
            if name not in declared:
                told = await client[database][name].index_information()
                declared[name] = {index: [(key, int(way)) for key, way in i["key"]] for index, i in told.items()}
            index = serving(query, declared[name])
            assert index, query
            used.add(f"{name}: {index}")
            if real:
                told = await client[database].command({"explain": query, "verbosity": "executionStats"})
                _check(query, told)
    finally:
        await client.close()
    fields = ("category_id", "product_type_id", "brand", "status", "deleted")
    names = ("skus", "request", "pending", "_id_", *fields, *(f"{field}_by_change" for field in fields))
    assert {f"products: {name}" for name in names} | {"trials: _id_", "trials: trial"} <= used


def _check(query: Mapping[str, Any], told: Any) -> None:
    """What a real MongoDB did."""
    plan, stats = told["queryPlanner"]["winningPlan"], told["executionStats"]
    assert not {*_every(plan, "stage")} & {"COLLSCAN", "SORT"}, (query, plan)
    scans = max((len(each["$in"]) for each in query["filter"].values() if _among(each)), default=1)
    narrowed = query["filter"].keys() - {"deleted", "_id", "updated"}
    if query.get("limit") and query.get("sort") and len(narrowed) < 2:
        # One key more for each scan and each moment than there are answers.
        assert stats["totalKeysExamined"] <= query["limit"] + 3 * scans + 10, (query, plan)


def serving(query: Mapping[str, Any], indexes: Mapping[str, Keys]) -> str | None:
    """The index, the one named as a hint if there is one, that finds what the query asks: it begins with fields that
    are held to values, goes on with the order, or without one with a range; what else is asked is checked on what that
    finds, and isn't what it begins with."""
    asked = query.get("filter") or {}
    equal = {field for field, each in asked.items() if not isinstance(each, dict) or _among(each)}
    scans = 1
    for each in asked.values():
        scans *= len(each["$in"]) if _among(each) else 1
    order = [(field, int(way)) for field, way in (query.get("sort") or {}).items()]
    hint = [(field, int(way)) for field, way in (query.get("hint") or {}).items()]
    for name, keys in indexes.items():
        if hint and keys != hint:
            continue
        begin = 0
        while begin < len(keys) and keys[begin][0] in equal:
            begin += 1
        if not order:
            if begin or keys[0][0] in asked:
                return name
            continue
        # Fields that are held to values may be of the order too, and stand anywhere in it.
        for start in range(begin + 1):
            rest = keys[start:]
            backwards = [(field, -way) for field, way in rest]
            begins_held = start or not equal - {field for field, _ in rest[: len(order)]} - {"deleted"}
            if order in (rest[: len(order)], backwards[: len(order)]) and begins_held and scans <= MOST_SCANS:
                return name
    return None


def test_a_query_without_its_index_is_noticed() -> None:
    indexes = {"_id_": [("_id", 1)], "brand": [("brand", 1), ("_id", 1)], "later": [("updated", 1), ("_id", 1)]}

    def served(asked: dict[str, Any], *order: tuple[str, int], **more: Any) -> str | None:
        return serving({"find": "products", "filter": asked, "sort": dict(order), **more}, indexes)

    assert served({"brand": "b", "_id": {"$gt": "p"}}, ("_id", 1)) == "brand"
    assert served({"brand": {"$in": ["b"] * 200}}, ("_id", -1)) == "brand"
    assert served({"brand": {"$in": ["b"] * 201}}, ("_id", -1)) is None
    assert served({"brand": "b"}, ("updated", 1), ("_id", 1)) is None
    assert served({"status": "s"}) is None
    assert served({"status": "s"}, ("_id", 1)) is None
    assert served({"updated": {"$gt": 1}}, ("updated", -1), ("_id", -1)) == "later"
    assert served({"updated": {"$gt": 1}}, ("updated", 1), ("_id", -1)) is None
    assert served({"brand": "b"}, ("_id", 1), hint={"_id": 1}) is None


def _among(condition: Any) -> bool:
    return isinstance(condition, dict) and set(condition) == {"$in"}


def _queries(commands: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """As find commands, without what belongs to the session."""
    kept = ("find", "filter", "sort", "hint", "limit", "projection")
    for database, command in commands:
        if "find" in command:
            yield database, {key: command[key] for key in kept if key in command}
            continue
        (collection, part) = ("update", "updates") if "update" in command else ("delete", "deletes")
        for write in command.get(part, ()):
            yield database, {"find": command[collection], "filter": write["q"]}


def _every(plan: Any, key: str) -> Iterator[str]:
    if isinstance(plan, dict):
        if isinstance(plan.get(key), str):
            yield plan[key]
        for value in plan.values():
            yield from _every(value, key)
    elif isinstance(plan, list):
        for value in plan:
            yield from _every(value, key)
