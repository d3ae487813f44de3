"""Every query of the catalog's stores is served by the index declared for it, as the engine's `explain` tells."""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent, register

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

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_WHOLE = ("categories", "category_tree")
"""Read whole on purpose: the tree of categories is small, and its guard is one document."""


class Recorder(CommandListener):
    """What was asked of the server, once it is on."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.on = False

    def started(self, event: CommandStartedEvent) -> None:
        if self.on and event.command_name in ("find", "update", "delete"):
            self.commands.append((event.database_name, copy.deepcopy(dict(event.command))))

    def succeeded(self, event: object) -> None: ...
    def failed(self, event: object) -> None: ...


RECORDER = Recorder()
register(RECORDER)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    RECORDER.commands.clear()
    RECORDER.on = True
    yield RECORDER
    RECORDER.on = False


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
    await products.get(["p"])
    await products.requested("r")
    await products.holders(["a"])
    await products.variants(["a"])
    await products.revisions("p")
    filters = product(((), ("c", "d")), ("", "t"), ("", "b"), (None, Status.ACTIVE), (None, NOON))
    for which, order, after in product(filters, Order, (None, Position("p", NOON))):
        await products.page(Filter(*which), order, after, 10)
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


async def test_every_query_is_served_by_an_index_without_sorting(empty_mongo: Mongo, recorder: Recorder) -> None:
    await use_everything(empty_mongo)
    recorder.on = False
    client: Any = AsyncMongoClient(empty_mongo.url)
    seen: set[str] = set()
    try:
        secantus = "secantusVersion" in await client.admin.command("buildInfo")
        for database, query in _queries(recorder.commands):
            if query["find"] in _WHOLE and not query.get("filter"):
                continue
            # SecantusDB reads by _id and explains it as a scan where the filter says more; it sorts what has an order.
            if secantus and "_id" in query["filter"]:
                continue
            told = await client[database].command({"explain": query, "verbosity": "queryPlanner"})
            plan = told["queryPlanner"]["winningPlan"]
            stages, indexes = set(_every(plan, "stage")), set(_every(plan, "indexName"))
            assert not stages & ({"COLLSCAN"} if secantus else {"COLLSCAN", "SORT"}), (query, plan)
            # An express or id plan names no index: it is that of _id.
            seen.add(f"{query['find']}: {', '.join(sorted(indexes)) or '_id_'}")
    finally:
        await client.close()
    named = ("skus", "request", "category_id", "product_type_id", "brand", "status", "updated", "pending", "_id_")
    assert {f"products: {name}" for name in named} <= seen


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
