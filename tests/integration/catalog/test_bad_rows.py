"""An import of bad rows of every kind among good ones, from a file over gRPC: each has its reason, none is lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.type.money_pb2 import Money
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1.product_pb2 import AttributeValue, Product

from ops.importing import ImportReport, import_products, read_products
from tests.integration.catalog.support import Catalog, product

GOOD: dict[str, Any] = {"name": "Cable", "price": "13.95", "currency": "USD"}


def row(sku: str, **fields: object) -> bytes:
    return json.dumps({"sku": sku, **GOOD, **fields}).encode()


# A line, and what its reason must say; empty for a good one.
LINES: list[tuple[bytes, str]] = [
    (row("first"), ""),
    (row("n1", name=7), "name: must be text, not a number"),
    (row("n2", name=None), "name: is missing"),
    (row("n3", ean=[None]), "ean[0]: must be text, not null"),
    (row("n4", attributes={"a": {"b": None}}), 'attributes["a"]: an attribute must be text, a number or a boolean'),
    (row("n5", attributes={"a": None}), "not null"),
    (row("n6", attributes=[None]), "attributes: must be an object, not a list"),
    (row("n7", options={"size": None}), 'options["size"]: must be text, not null'),
    (row("first"), "UNCHANGED"),
    (row("thief", product_id="thief"), ""),
    (row("thief", product_id="second"), "variants[0].sku: 'thief' belongs to product 'thief'"),
    (row("stored"), "variants[0].sku: 'stored' belongs to product 'before'"),
    (row("n8", price="-1"), "variants[0].price: must not be negative"),
    (row("n9", price="dear"), "price: 'dear' is not a decimal number"),
    (row("n10", price=True), "price: must be a decimal number, not true or false"),
    (row("n11", currency="euro"), "currency_code must be a three-letter"),
    (row("n12", description="x" * 15_500_000), "bytes, over 15,000,000"),
    (row("n13", description="x" * 5_000_000), "description: has 5,000,000 characters, over 20,000"),
    (b'{"sku": "n14", "name": "\xff\xfe", "price": "1", "currency": "USD"}', "is not valid UTF-8"),
    (b'{"sku": "n15", "name": "\\ud800", "price": "1", "currency": "USD"}', "name: is not valid UTF-8"),
    (b"[" * 200_000, "is nested too deeply"),
    (b"{not json", "is not JSON"),
    (b'{"sku": "n16", "attributes": {"a": NaN}}', "NaN is no number"),
    (b"null", "a row must be a JSON object"),
    (row("n17", category_id="nowhere"), "category_id: there is no category 'nowhere'"),
    (row("n18", category_path=["Nowhere"]), "category_path: there is no category Nowhere"),
    (row("n19", category_path=["Home", ""]), "category_path[1]: is required"),
    (row("n20", product_type_id="none"), "product_type_id: there is no product type 'none'"),
    (row("n21", ean=["4008705048506"]), "variants[0].eans[0]: '4008705048506' has a wrong check digit"),
    (row("n22", status="SOLD"), "status: must be one of DRAFT, ACTIVE, ARCHIVED"),
    (row("n23", colour="blue"), "colour: is not a known field"),
    (row("n24", list_price="1"), "variants[0].list_price: must not be below the price"),
    (row("n25", variants=[{"sku": "n25"}]), "sku: must not stand beside variants"),
    (json.dumps({**GOOD, "price": None, "product_id": "x", "variants": [{"sku": "v"}, 7]}).encode(),
        "variants[0].price: is missing; variants[1]: must be an object, not a number"),
    (row("n26", name="", price="-1", brand="x" * 201), "name: is missing"),
    (row(" first"), "product_id: must not begin or end with white space; variants[0].sku: must not begin"),
    (row("n27", category_path=["Home "]), "category_path[0]: must not begin or end with white space"),
    (row("last", price=14.95, attributes={"a": 1.5, "b": "x", "c": False}, mpn=None, description=None), ""),
]  # fmt: skip


async def status(call: Coroutine[Any, Any, None]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code().name


async def test_bad_rows_of_every_kind_are_told_their_reason_and_the_good_ones_go_in(
    catalog: Catalog, tmp_path: Path
) -> None:
    before = messages.CreateProductRequest(product=product("before", "stored"))
    await catalog.stub.CreateProduct(before, timeout=10)
    path = tmp_path / "products.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in LINES))
    report = ImportReport()
    rows = list(read_products(path, report))
    for request in rows:
        request.unknown_category = messages.UNKNOWN_CATEGORY_REJECT
    await import_products(catalog.stub, rows, report)

    reasons = {rejection.row: rejection.reason for rejection in report.rejections}
    expected = {n: text for n, (_, text) in enumerate(LINES, start=1) if text not in ("", "UNCHANGED")}
    assert reasons.keys() == expected.keys()
    for number, text in expected.items():
        assert text in reasons[number], (number, reasons[number])
    assert report.outcomes == {"CREATED": 3, "UNCHANGED": 1, "REJECTED": len(expected)}
    found = await catalog.store.get(["first", "thief", "last"])
    assert len(found) == 3
    last: Product = await catalog.stub.GetProduct(messages.GetProductRequest(product_id="last"), timeout=10)
    assert last.variants[0].price == Money(currency_code="USD", units=14, nanos=950_000_000)


async def test_a_message_that_is_bad_in_itself_is_answered_beside_the_good_ones(catalog: Catalog) -> None:
    """What a client of another language may send: every field that the service itself has to refuse."""
    bad = [
        Product(product_id="x" * 200, name="Mug"),
        product("p", "a", "a"),
        product("q", description="x" * 5_000_000),
        product("r", status=77),  # type: ignore[arg-type]
        product("s", tags=["new", "new"]),
    ]
    rows = [messages.ImportProductsRequest(row=n, product=given) for n, given in enumerate([*bad, product("good")])]
    rows.append(messages.ImportProductsRequest(row=99, product=product("t", category_id="c"), category_path=["C"]))
    results = {r.row: r async for a in catalog.stub.ImportProducts(iter(rows), timeout=30) for r in a.results}
    assert {n: [v.field for v in r.violations] for n, r in results.items()} == {
        0: ["product_id", "variants"], 1: ["variants[1].sku"], 2: ["description", "description"], 3: ["status"],
        4: ["tags[1]"], 5: [], 99: ["category_path"],
    }  # fmt: skip
    assert results[5].outcome == messages.IMPORT_OUTCOME_CREATED


async def test_an_import_of_products_as_large_as_they_may_be_goes_in(catalog: Catalog) -> None:
    text = {f"a{n}": AttributeValue(text="x" * 7_000) for n in range(35)}
    rows = (messages.ImportProductsRequest(row=n, product=product(f"p{n}", attributes=text)) for n in range(300))
    results = [r async for a in catalog.stub.ImportProducts(rows, timeout=120) for r in a.results]
    assert {r.outcome for r in results} == {messages.IMPORT_OUTCOME_CREATED}
    assert len(results) == 300


async def test_a_row_with_a_fault_in_every_corner_has_an_answer_that_a_client_takes(catalog: Catalog) -> None:
    bad = product("p", *(f"s{n}" for n in range(200)))
    for variant in bad.variants:
        variant.eans.extend(["9" * 40] * 200)
    call = catalog.stub.ImportProducts(iter([messages.ImportProductsRequest(row=1, product=bad)]), timeout=30)
    (result,) = [r async for answer in call for r in answer.results]
    assert result.violations[0].field == "variants[0].eans[0]"
    assert result.violations[-1].description == "and 38,001 more"


async def test_what_was_answered_before_a_message_that_is_too_large_is_stored(catalog: Catalog) -> None:
    answered = asyncio.Event()

    async def rows() -> AsyncIterator[messages.ImportProductsRequest]:
        yield messages.ImportProductsRequest(row=1, product=product("good"))
        await answered.wait()
        yield messages.ImportProductsRequest(row=2, product=product("huge", description="x" * 17 * 1024 * 1024))

    async def imported() -> None:
        async for answer in catalog.stub.ImportProducts(rows(), timeout=30):
            assert [(r.row, r.outcome) for r in answer.results] == [(1, messages.IMPORT_OUTCOME_CREATED)]
            answered.set()

    assert (await status(imported())) == "RESOURCE_EXHAUSTED"
    assert (await catalog.store.get(["good", "huge"])).keys() == {"good"}


async def test_of_two_imports_at_once_that_want_the_same_skus_each_sku_goes_to_one(catalog: Catalog) -> None:
    def rows(owner: str) -> list[messages.ImportProductsRequest]:
        path = ["Home", "Cups"]
        return [
            messages.ImportProductsRequest(row=n, product=product(f"{owner}{n}", f"s{n}"), category_path=path)
            for n in range(200)
        ]

    async def imported(owner: str) -> list[messages.ImportResult]:
        call = catalog.stub.ImportProducts(iter(rows(owner)), timeout=60)
        return [result async for answer in call for result in answer.results]

    one, other = await asyncio.gather(imported("a"), imported("b"))
    good = [r for r in (*one, *other) if r.outcome == messages.IMPORT_OUTCOME_CREATED]
    bad = [r for r in (*one, *other) if r.outcome == messages.IMPORT_OUTCOME_REJECTED]
    assert sorted(r.row for r in good) == sorted(r.row for r in bad) == list(range(200))
    assert {v.field for r in bad for v in r.violations} == {"variants[0].sku"}
    holders = await catalog.store.holders([f"s{n}" for n in range(200)])
    assert sorted(holders.values()) == sorted(r.product_id for r in good)
    assert len((await catalog.categories.tree()).categories) == 2
