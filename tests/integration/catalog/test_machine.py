"""Whatever callers do over gRPC: the catalog is what a map would be, and its events replayed make the same map."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1.events_pb2 import CategoryChanged, ProductDeleted
from polymart.catalog.v1.product_pb2 import Product

from chassis.messaging.nats import Nats
from tests.integration.catalog.support import STREAM, Catalog, events, faults, product

LIMIT = 10.0
IDS = st.sampled_from(["p", "q", "r"])
SKUS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)
NAMES = st.sampled_from(["Mug", "Cup", "Jug"])
STATUSES = st.integers(1, 3)
PATHS = st.sampled_from([(), ("Home",), ("Home", "Cups"), ("Garden",)])

Model = dict[str, Product]


def plain(given: Product) -> Product:
    """Without what the service makes of its own."""
    kept = Product()
    kept.CopyFrom(given)
    for field in ("etag", "create_time", "update_time", "version"):
        kept.ClearField(field)  # type: ignore[arg-type]
    return kept


class Edits(RuleBasedStateMachine):
    """Creations, updates, deletions and imports of three products that want the same four SKUs."""

    catalog: Catalog
    loop: asyncio.AbstractEventLoop
    clean: Callable[[], Awaitable[None]]
    told: dict[str, tuple[str, ...]]  # paths by category, which stay from one run to the next

    def __init__(self) -> None:
        super().__init__()
        self.model: Model = {}
        self.versions: dict[str, int] = {}
        self.etags: dict[str, str] = {}

    @initialize()
    def begin_with_nothing(self) -> None:
        self.run(type(self).clean())

    @rule(product_id=IDS, skus=SKUS, name=NAMES, status=STATUSES)
    def create(self, product_id: str, skus: list[str], name: str, status: Any) -> None:
        given = product(product_id, *skus, name=name, status=status)
        request = messages.CreateProductRequest(product=given)
        answer = self.attempt(self.catalog.stub.CreateProduct, request)
        if product_id in self.model:
            assert answer == "PRODUCT_EXISTS"
        elif self.taken(product_id, skus):
            assert answer == "SKU_TAKEN"
        else:
            self.keep(answer, given)

    @rule(product_id=IDS, skus=SKUS, name=NAMES, stale=st.booleans(), whole=st.booleans())
    def update(self, product_id: str, skus: list[str], name: str, stale: bool, whole: bool) -> None:
        given = product(product_id, *skus, name=name, etag="stale" if stale else self.etags.get(product_id, ""))
        paths = ["name", "variants"] if whole else ["name"]
        request = messages.UpdateProductRequest(product=given, update_mask=FieldMask(paths=paths))
        answer = self.attempt(self.catalog.stub.UpdateProduct, request)
        if product_id not in self.model:
            assert answer == "PRODUCT_NOT_FOUND"
        elif stale:
            assert answer == "STALE_ETAG"
        elif whole and self.taken(product_id, skus):
            assert answer == "SKU_TAKEN"
        else:
            expected = Product()
            expected.CopyFrom(self.model[product_id])
            expected.name = name
            if whole:
                del expected.variants[:]
                expected.variants.extend(given.variants)
            self.keep(answer, expected, changed=expected != self.model[product_id])

    @rule(product_id=IDS, sku=st.sampled_from("abcd"), units=st.integers(1, 3))
    def reprice(self, product_id: str, sku: str, units: int) -> None:
        given = product(product_id, sku)
        given.variants[0].price.units = units
        request = messages.UpdateProductRequest(product=given)
        request.update_mask.paths.append(f"variants.{sku}.price")
        answer = self.attempt(self.catalog.stub.UpdateProduct, request)
        if product_id not in self.model:
            assert answer == "PRODUCT_NOT_FOUND"
            return
        expected = Product()
        expected.CopyFrom(self.model[product_id])
        variant = next((v for v in expected.variants if v.sku == sku), None)
        if variant is None:
            assert answer == "INVALID_ARGUMENT"
            return
        variant.price.CopyFrom(given.variants[0].price)
        self.keep(answer, expected, changed=expected != self.model[product_id])

    @rule(product_id=IDS, stale=st.booleans())
    def delete(self, product_id: str, stale: bool) -> None:
        request = messages.DeleteProductRequest(product_id=product_id, etag="stale" if stale else "")
        answer = self.attempt(self.catalog.stub.DeleteProduct, request)
        if product_id not in self.model:
            assert answer == "PRODUCT_NOT_FOUND"
        elif stale:
            assert answer == "STALE_ETAG"
        else:
            assert not isinstance(answer, str)
            del self.model[product_id]
            self.versions[product_id] += 1

    @rule(rows=st.lists(st.tuples(IDS, SKUS, NAMES, PATHS), max_size=6), dry=st.booleans())
    def import_rows(self, rows: list[tuple[str, list[str], str, tuple[str, ...]]], dry: bool) -> None:
        requests = [
            messages.ImportProductsRequest(
                row=n, product=product(key, *skus, name=name), category_path=path, validate_only=dry
            )
            for n, (key, skus, name, path) in enumerate(rows)
        ]
        answers = self.run(self.imported(requests))
        assert answers.keys() == set(range(len(rows)))
        tree = self.run(self.catalog.categories.tree())
        model = dict(self.model)
        for n, (key, skus, name, path) in enumerate(rows):
            # A category that would be made is none yet.
            category_id = tree.find(path) or " > ".join(path)
            given = product(key, *skus, name=name, category_id=category_id, status=2)  # type: ignore[arg-type]
            before = model.get(key)
            if self.taken(key, skus, model):
                expected = "REJECTED"
            elif before is None:
                expected = "CREATED"
            else:
                expected = "UNCHANGED" if before == given else "UPDATED"
            assert answers[n] == expected
            if expected in ("CREATED", "UPDATED"):
                model[key] = given
            if expected in ("CREATED", "UPDATED") and not dry:
                self.model[key] = given
                self.versions[key] = self.versions.get(key, 0) + 1
                self.etags.pop(key, None)

    async def imported(self, requests: list[messages.ImportProductsRequest]) -> dict[int, str]:
        call = self.catalog.stub.ImportProducts(iter(requests), timeout=LIMIT)
        return {
            result.row: messages.ImportOutcome.Name(result.outcome).rpartition("_")[2]
            async for answer in call
            for result in answer.results
        }

    @invariant()
    def the_catalog_is_the_model(self) -> None:
        found = self.run(self.everything())
        assert {key: plain(p) for key, p in found.items()} == self.model
        assert {key: p.version for key, p in found.items()} == {key: self.versions[key] for key in self.model}
        sold = messages.BatchGetVariantsRequest(skus=list("abcd"))
        variants = self.attempt(self.catalog.stub.BatchGetVariants, sold).variants
        assert {v.variant.sku: v.product_id for v in variants} == {
            v.sku: key for key, p in self.model.items() for v in p.variants
        }

    def teardown(self) -> None:
        published = self.run(self.catalog.published())
        replayed: Model = {}
        versions: dict[str, int] = {}
        for event in published:
            if isinstance(event, CategoryChanged):
                continue
            about: Any = event if isinstance(event, ProductDeleted) else event.product  # type: ignore[attr-defined]
            # One for each version, in order.
            assert about.version == versions.get(about.product_id, 0) + 1
            versions[about.product_id] = about.version
            if isinstance(event, ProductDeleted):
                del replayed[about.product_id]
            else:
                replayed[about.product_id] = about
        assert versions == self.versions
        assert replayed == self.run(self.everything())
        news = (e.category for e in published if isinstance(e, CategoryChanged))
        self.told.update((category.category_id, tuple(category.path)) for category in news)
        tree = self.run(self.catalog.categories.tree())
        assert self.told == {key: tree.path(key) for key in tree.categories}

    async def everything(self) -> Model:
        call = self.catalog.stub.StreamProducts(messages.StreamProductsRequest())
        return {state.product.product_id: state.product async for answer in call for state in answer.states}

    def taken(self, product_id: str, skus: list[str], model: Model | None = None) -> bool:
        held = self.model if model is None else model
        return any(v.sku in skus for key, p in held.items() if key != product_id for v in p.variants)

    def keep(self, answer: Any, expected: Product, *, changed: bool = True) -> None:
        assert isinstance(answer, Product), answer
        product_id = expected.product_id
        self.versions[product_id] = self.versions.get(product_id, 0) + changed
        assert answer.version == self.versions[product_id]
        self.model[product_id], self.etags[product_id] = plain(expected), answer.etag
        assert plain(answer) == self.model[product_id]

    def attempt(self, method: Callable[..., Awaitable[Any]], request: Message) -> Any:
        """The answer, or the reason why not."""

        async def made() -> Any:
            try:
                return await method(request, timeout=LIMIT)
            except grpc.aio.AioRpcError as error:
                return faults(error)[1]

        return self.run(made())

    def run(self, call: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(LIMIT)


async def test_edits_and_imports_over_grpc_are_as_a_map_and_its_events_replayed_make_it(
    catalog: Catalog, fresh_nats: Nats
) -> None:
    async def clean() -> None:
        await catalog.published()
        await catalog.store._products.delete_many({})
        await fresh_nats.js.purge_stream(STREAM)
        assert await events(fresh_nats) == []

    machine = type(
        "Machine", (Edits,), {"catalog": catalog, "loop": asyncio.get_running_loop(), "clean": clean, "told": {}}
    )
    rules = settings(
        max_examples=40,
        stateful_step_count=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    # hypothesis is of threads: the service and its clients stay in this one's loop.
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=rules)
