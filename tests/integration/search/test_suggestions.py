"""Completions and other spellings on the engine."""

import random
import statistics
from pathlib import Path

import pytest

from ops.importing import ImportReport, read_products
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.elastic_suggest import ElasticSuggestions
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.application.search import search_products
from search_svc.application.suggestions import complete, did_you_mean
from search_svc.domain.product import Category, Product
from search_svc.domain.query import Query
from search_svc.domain.suggestion import CompletionKind
from search_svc.protos import product_from_proto
from tests.integration.search.support import filled
from tests.integration.search.test_queries import item, place

SAMPLE = Path(__file__).parents[3] / "data" / "products.jsonl.gz"


@pytest.fixture
def suggestions(engine: Engine, indices: Indices) -> ElasticSuggestions:
    return ElasticSuggestions(engine)


@pytest.fixture
def search(engine: Engine, indices: Indices) -> ElasticProductSearch:
    return ElasticProductSearch(engine, indices)


async def completed(suggestions: ElasticSuggestions, text: str, *popular: str) -> list[tuple[CompletionKind, str]]:
    found = await complete(text, size=10, popular=popular, completions=suggestions)
    return [(each.kind, each.text) for each in found]


def products(*names: str) -> list[tuple[CompletionKind, str]]:
    return [(CompletionKind.PRODUCT, name) for name in names]


async def test_what_is_typed_begins_any_words_of_a_name_in_any_case(
    engine: Engine, suggestions: ElasticSuggestions
) -> None:
    await filled(engine, [item("m", "Wireless Mouse M185"), item("k", "Café kettle"), item("w", "Mouse, wired")])
    assert sorted(await completed(suggestions, "mou")) == sorted(products("Mouse, wired", "Wireless Mouse M185"))
    assert (await completed(suggestions, "mou"))[0] == products("Mouse, wired")[0]
    assert await completed(suggestions, "mou wirel") == products("Wireless Mouse M185")
    assert await completed(suggestions, "CAFE K") == products("Café kettle")
    assert await completed(suggestions, "m185") == products("Wireless Mouse M185")
    for nothing in ("zzz", "!?", " ", "use"):
        assert await completed(suggestions, nothing) == []


async def test_a_beginning_with_a_typing_error_is_completed_where_nothing_else_is(
    engine: Engine, suggestions: ElasticSuggestions
) -> None:
    await filled(engine, [item("k", "Keyboard"), item("m", "Mouse")])
    assert await completed(suggestions, "keybaord") == products("Keyboard")
    assert await completed(suggestions, "keyb") == products("Keyboard")


async def test_brands_categories_and_searches_come_before_products(
    engine: Engine, suggestions: ElasticSuggestions
) -> None:
    lamps = place(("Home", "Lamps"))
    await filled(
        engine,
        [
            item("a", "Lampion", brand="Lamplight & Co", category=lamps),
            item("b", "Desk lamp", brand="Acme", category=lamps),
            item("c", "Lamp stand", brand="Acme", category=place(("Home",))),
        ],
    )
    assert (await completed(suggestions, "lamp", "lamp shade", "lamp", "mug"))[:3] == [
        (CompletionKind.SEARCH, "lamp shade"),
        (CompletionKind.BRAND, "Lamplight & Co"),
        (CompletionKind.CATEGORY, "Home > Lamps"),
    ]
    found = await complete("lamp", size=3, popular=["lamp shade"], completions=suggestions)
    assert len(found) == 3
    assert await completed(suggestions, "home la") == [(CompletionKind.CATEGORY, "Home > Lamps")]


async def test_what_is_not_shown_is_not_suggested(engine: Engine, suggestions: ElasticSuggestions) -> None:
    hidden = item("h", "Hidden mug", brand="Hidden", active=False)
    await filled(engine, [hidden, Product("gone", 2, deleted=True), item("m", "Mug"), item("n", "Mug")])
    assert await completed(suggestions, "hid") == []
    assert await completed(suggestions, "mug") == products("Mug")


async def test_another_spelling_is_offered_only_where_it_finds_more(
    engine: Engine, search: ElasticProductSearch, suggestions: ElasticSuggestions
) -> None:
    await filled(
        engine,
        [
            *(item(f"k{n}", "Wireless keyboard", brand="Acme") for n in range(20)),
            item("odd", "Keybord cover", brand="Zeta"),
            item("mouse", "Wireless mouse"),
        ],
    )

    async def meant(text: str, **fields: object) -> str:
        query = Query(text, **fields)  # type: ignore[arg-type]
        results = await search_products(query, size=5, index=search)
        return await did_you_mean(query, results, spelling=suggestions, index=search)

    assert await meant("wirelss keyboard") == "wireless keyboard"
    assert await meant("wirelss mouse") == "wireless mouse"
    # It is there, and the other is there far more often.
    assert await meant("keybord") == "keyboard"
    for fine in ("keyboard", "mouse", "zzzzzzz", "", "!!"):
        assert await meant(fine) == "", fine
    # Under the filters, the other finds nothing either.
    assert await meant("wirelss keyboard", brands=["Zeta"]) == ""


async def share_typed(engine: Engine, suggestions: ElasticSuggestions, loaded: int, names: int) -> float:
    """The median share of a name's letters after which the product is among ten completions."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    found = []
    for row in read_products(SAMPLE, ImportReport()):
        row.product.version = 1
        path = tuple(row.category_path)
        one = product_from_proto(row.product).with_category(None)
        found.append(Product(**{**_fields(one), "active": True, "category": Category("/".join(path), path, 1)}))
        if len(found) == loaded:
            break
    for begin in range(0, len(found), 1_000):
        await filled(engine, found[begin : begin + 1_000])
    shares = []
    for one in random.Random(seed).sample([each for each in found if each.name], names):
        for typed in range(1, len(one.name) + 1):
            completions = await complete(one.name[:typed], size=10, popular=(), completions=suggestions)
            if any(each.text == one.name and each.kind is CompletionKind.PRODUCT for each in completions):
                break
        shares.append(typed / len(one.name))
    return statistics.median(shares)


def _fields(one: Product) -> dict[str, object]:
    return {name: getattr(one, name) for name in Product.__dataclass_fields__}


async def test_a_product_is_completed_after_less_than_half_of_its_name(
    engine: Engine, suggestions: ElasticSuggestions
) -> None:
    assert await share_typed(engine, suggestions, 500, 30) <= 0.4


@pytest.mark.slow
async def test_products_of_a_whole_shop_are_completed_after_two_fifths_of_their_names(
    engine: Engine, suggestions: ElasticSuggestions
) -> None:
    assert await share_typed(engine, suggestions, 10**6, 500) <= 0.4
