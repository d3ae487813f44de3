"""What a shopper sees first, on every engine: a small shop, judged by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from chassis.money import Money
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import PRODUCTS
from search_svc.adapters.synonyms_file import SynonymsFile
from search_svc.application.search import search_products
from search_svc.domain.product import AttributeValue, Availability, Category, Product, SkuAvailability, Variant
from search_svc.domain.query import Query, Relaxed, Results
from tests.integration.search.support import filled


def item(
    product_id: str, name: str, brand: str = "", path: tuple[str, ...] = (), **attributes: AttributeValue
) -> Product:
    variants = (Variant(f"SKU-{product_id}", Money("GBP", 10**9), eans=(f"00{abs(hash(product_id)) % 10**11:011}",)),)
    category = Category("/".join(path), path, 1) if path else Category()
    return Product(
        product_id, 1, name=name, brand=brand, category=category, attributes=attributes, variants=variants,
        availability={f"SKU-{product_id}": SkuAvailability(Availability.IN_STOCK, 1)},
    )  # fmt: skip


SHOP = (
    item("keyboard", "Cherry Comfort USB keyboard QWERTY Black", "Cherry", colour="Black", layout="QWERTY"),
    item("keyboard cover", "Cherry WetEx Keyboard cover", "Cherry"),
    item("keyboard tray", "Newstar keyboard tray", "Newstar"),
    item(
        "mouse", "Logitech M90 mouse USB Type-A Optical 1000 DPI", "Logitech", interface="USB Type-A", sensor="Optical"
    ),
    item("mouse pad", "3M mouse pad Gray", "3M", mpn="MP-114/G"),
    item("notebook", "HP ProBook 4520s Notebook PC", "HP", ("Computers", "Notebooks")),
    item("notebook case", '15.6" notebook case', "Targus"),
    item("small case", '13.3" notebook case', "Targus"),
    item("sticks", "Kingston memory stick 4 GB", "Kingston"),
    item("large sticks", "Kingston memory stick 8GB", "Kingston"),
    item("cable", "C2G USB-C cable 2m", "C2G"),
    item("watch", "Huawei smartwatch GT", "Huawei"),
    item("shirt", "Men's shirt", "Acme"),
    item("television", "Philips 50in television", "Philips"),
    item("phone case", "ZAGG mobile phone case for iPhone 11", "ZAGG"),
    item("phone", "Apple iPhone 11", "Apple"),
    item("toner", "Brother TN-2110 toner cartridge", "Brother", oem_code="TN2110"),
    *(item(f"cup {n}", f"Cup number {n}", "Acme") for n in range(40)),
)

FIRST = {
    "keyboard": "keyboard", "keyboards": "keyboard", "keyboard cover": "keyboard cover", "mouse": "mouse",
    "mouse pad": "mouse pad", "mousepad": "mouse pad", "notebook": "notebook", "notebooks": "notebook",
    "case for notebook": "notebook case", "15.6 inch case": "notebook case", '15.6" case': "notebook case",
    "15.6in case": "notebook case", "13.3 inches case": "small case", "4gb stick": "sticks", "4 gb stick": "sticks",
    "8 gigabytes stick": "large sticks", "usb c": "cable", "usb-c": "cable", "usbc": "cable", "USB-C cables": "cable",
    "2 metre cable": "cable", "smart watch": "watch", "mens shirt": "shirt", "men's shirts": "shirt",
    "tn2110": "toner", "TN-2110": "toner", "tn 2110": "toner", "mp114g": "mouse pad", "sku-phone": "phone",
    "50 inch television": "television", "iphone case": "phone case",
}  # fmt: skip


@pytest.fixture
async def shop(engine: Engine, indices: Indices) -> ElasticProductSearch:
    await filled(engine, SHOP)
    return ElasticProductSearch(engine, indices)


async def found(search: ElasticProductSearch, text: str, **query: bool) -> Results:
    return await search_products(Query(text, **query), size=20, index=search)  # type: ignore[arg-type]


def listed(results: Results) -> list[str]:
    return [hit.product.product_id for hit in results.hits]


async def test_what_is_meant_comes_first(shop: ElasticProductSearch) -> None:
    first = {text: next(iter(listed(await found(shop, text))), None) for text in FIRST}
    assert first == FIRST


async def test_a_product_is_found_by_its_ean_with_and_without_leading_zeros(shop: ElasticProductSearch) -> None:
    ean = SHOP[0].variants[0].eans[0]
    assert listed(await found(shop, ean))[:1] == listed(await found(shop, ean.lstrip("0")))[:1] == ["keyboard"]


async def test_a_misspelt_word_is_taken_for_the_one_that_is_like_it_and_that_is_said(
    shop: ElasticProductSearch,
) -> None:
    for text, expected in {"keybord": "keyboard", "mosue pad": "mouse pad", "telvision": "television"}.items():
        results = await found(shop, text)
        assert (listed(results)[:1], results.relaxed) == ([expected], Relaxed.TYPOS), text


async def test_where_nothing_has_all_words_some_are_enough_and_that_is_said(shop: ElasticProductSearch) -> None:
    results = await found(shop, "purple television zzzzzz")
    assert (listed(results), results.relaxed) == (["television"], Relaxed.FEWER_WORDS)
    results = await found(shop, "qqqqqq zzzzzz")
    assert (listed(results), results.total) == ([], 0)


async def test_what_sells_or_is_in_stock_comes_before_what_is_just_as_good(engine: Engine, indices: Indices) -> None:
    twins = [replace(item(key, "Red lamp"), product_id=key) for key in ("a", "b", "c")]
    out = {"SKU-a": SkuAvailability(Availability.OUT, 1)}
    await filled(engine, [replace(twins[0], availability=out), *twins[1:], *SHOP])
    await engine.client.update(index=PRODUCTS, id="c", doc={"popularity": 250}, refresh=True)
    shop = ElasticProductSearch(engine, indices)
    assert listed(await found(shop, "red lamp")) == ["c", "b", "a"]


async def test_an_explanation_adds_up_to_the_score(engine: Engine, shop: ElasticProductSearch) -> None:
    await engine.client.update(index=PRODUCTS, id="mouse", doc={"popularity": 4.0}, refresh=True)
    for text in ("mouse", "mouse usb", "keyboard cover", "tn2110", "mosue"):
        for hit in (await found(shop, text, explain=True)).hits:
            score = sum(part.value for part in hit.explanation if not part.factor)
            for part in hit.explanation:
                score *= part.value if part.factor else 1
            assert score == pytest.approx(hit.score, rel=1e-4), (text, hit.explanation)
    (mouse, *_) = (await found(shop, "mouse", explain=True)).hits
    names = [part.name for part in mouse.explanation]
    assert names == ["words", "name", "together", "fields", "the thing itself", "popularity", "popularity"]


async def test_synonyms_of_several_words_find_what_they_mean_and_a_bad_file_changes_nothing(
    engine: Engine, shop: ElasticProductSearch, indices: Indices, tmp_path: Path
) -> None:
    file, now = tmp_path / "synonyms.txt", [0.0]
    file.write_text("telly, television\nportable computer => notebook\nmouse pad, mouse mat\n")
    synonyms = SynonymsFile(file, now=lambda: now[0])
    shop = ElasticProductSearch(engine, indices, synonyms=synonyms)

    async def first(text: str) -> str:
        return next(iter(listed(await found(shop, text))), "")

    assert await first("telly") == "television"
    assert await first("portable computer") == "notebook"
    assert await first("mouse mat") == "mouse pad"
    assert not (await found(shop, "goggle box")).total
    file.write_text("goggle box, television\n, x\n")
    now[0] += 2
    assert await first("telly") == "television"
    file.write_text("goggle box, television\n")
    now[0] += 2
    assert await first("goggle box") == "television"
