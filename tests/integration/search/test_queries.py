"""Queries on the engine, against what plain Python makes of the same products."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chassis.money import Money
from search_svc.adapters import elastic_search
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import PARTS, PRODUCTS
from search_svc.adapters.terms import shown_value
from search_svc.application.search import search_products
from search_svc.domain.product import AttributeValue, Availability, Category, Product, SkuAvailability, Variant
from search_svc.domain.query import (
    Facet,
    FacetValue,
    Hit,
    NumberRange,
    Position,
    PriceRange,
    Query,
    Relaxed,
    Results,
    Sort,
)
from tests.integration.search.support import filled

# What means something to an engine's regular expressions, aggregation names, query strings or JSON.
NASTY = (
    "colour", "colour2", "Size [cm] > 2", "a.b", ".*", "(", "a|b", "#@&<>~", '"\\', "new\nline", "\x1f", "^$", "{1,2}",
    "ü", "日本", "_id", "🎈", "-", "not", "*", "a b",
)  # fmt: skip
BRANDS = ("Acme", "acme", "Ünlü & Söhne", 'x"y', "")
PATHS = ((), ("Home",), ("Home", "Lamps"), ("Home", "Lamps", "Desk"), ("Ho.*",))


def place(path: tuple[str, ...]) -> Category:
    return Category("/".join(path), path, 1)


@st.composite
def shelves(draw: st.DrawFn) -> list[Product]:
    """A few products that share brands, categories and attributes."""
    products = []
    for n in range(draw(st.integers(0, 25))):
        prices = draw(st.lists(st.tuples(st.sampled_from(["GBP", "USD"]), st.integers(0, 9)), min_size=1, max_size=3))
        variants = tuple(
            Variant(f"{n}-{m}", Money(currency, amount * 10**9), untracked=draw(st.booleans()))
            for m, (currency, amount) in enumerate(prices)
        )
        values: st.SearchStrategy[AttributeValue] = st.sampled_from(["red", "", ".*", True, 1.0, 1.5, -0.0, "1"])
        products.append(
            Product(
                f"p{n:02}",
                1,
                name="Mug",
                brand=draw(st.sampled_from(BRANDS)),
                created=draw(st.integers(0, 5) | st.just(2**52 + n)),
                category=draw(st.sampled_from(PATHS).map(place)),
                attributes=draw(st.dictionaries(st.sampled_from(NASTY), values, max_size=4)),
                variants=variants,
                availability={
                    v.sku: SkuAvailability(draw(st.sampled_from(Availability)), 1)
                    for v in variants
                    if draw(st.booleans())
                },
            )
        )
    return products


QUICK = settings(
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    print_blob=True,
)

ranges = st.builds(NumberRange, st.none() | st.sampled_from([-1.0, 0.0, 1.0, 1.2]), below=st.sampled_from([1.5, 9.0]))
some_of = st.lists(st.sampled_from(["red", ".*", "true", "1", "1.5", "none"]) | ranges, max_size=3, unique=True)
queries = st.builds(
    Query,
    brands=st.lists(st.sampled_from(BRANDS), max_size=2),
    categories=st.lists(st.sampled_from(["Home", "Home > Lamps", "Ho", "Ho.*"]), max_size=2),
    attributes=st.dictionaries(st.sampled_from(NASTY), some_of.filter(bool), max_size=1),
    price=st.none()
    | st.builds(
        PriceRange,
        st.sampled_from(["GBP", "USD", "EUR"]),
        st.none() | st.integers(0, 9).map(lambda n: n * 10**9),
        st.none() | st.integers(0, 9).map(lambda n: n * 10**9),
    ),
    price_ranges=st.lists(
        st.builds(
            PriceRange,
            st.sampled_from(["GBP", "USD"]),
            st.integers(0, 4).map(lambda n: n * 10**9),
            below=st.integers(5, 9).map(lambda n: n * 10**9),
        ),
        max_size=2,
    ),
    availabilities=st.lists(st.sampled_from(Availability), max_size=2),
    in_stock=st.booleans(),
    attribute_facets=st.lists(st.sampled_from(NASTY), max_size=3, unique=True),
)


def passes(one: Product, query: Query, besides: str = "") -> bool:
    """Does it meet all conditions, those of one facet aside?"""
    if query.brands and besides != "brand" and one.brand not in query.brands:
        return False
    if query.categories and besides != "category" and not set(query.categories) & set(one.categories):
        return False
    for name, values in (query.attributes or {}).items():
        if f"attributes.{name}" != besides and not any(has(one, name, value) for value in values):
            return False
    if query.in_stock and one.best_availability is Availability.OUT:
        return False
    if query.availabilities and besides != "availability" and one.best_availability not in query.availabilities:
        return False
    if query.price_ranges and besides != "price" and not any(costs(one, each) for each in query.price_ranges):
        return False
    return query.price is None or costs(one, query.price)


def within(number: float, wanted: PriceRange | NumberRange) -> bool:
    return (
        (wanted.minimum is None or number >= wanted.minimum)
        and (wanted.maximum is None or number <= wanted.maximum)
        and (wanted.below is None or number < wanted.below)
    )


def costs(one: Product, wanted: PriceRange) -> bool:
    return any(v.price.currency == wanted.currency and within(v.price.nanos, wanted) for v in one.variants)


def has(one: Product, name: str, wanted: str | NumberRange) -> bool:
    if isinstance(wanted, str):
        return shown(one, name) == wanted
    value = one.attributes.get(name)
    return isinstance(value, float) and within(value, wanted)


def shown(one: Product, name: str) -> str | None:
    return shown_value(one.attributes[name]) if name in one.attributes else None


def counted(products: Sequence[Product], query: Query) -> dict[str, list[tuple[str, int]]]:
    def ranked(facet: str, values: Sequence[Sequence[str | None]]) -> list[tuple[str, int]]:
        passing = [v for v, p in zip(values, products, strict=True) if passes(p, query, facet)]
        counts = Counter(value for each in passing for value in each if value)
        return sorted(counts.items(), key=lambda item: (-item[1], item[0].encode()))

    facets = {
        "brand": ranked("brand", [[p.brand] for p in products]),
        "availability": ranked("availability", [[p.best_availability.name] for p in products]),
    }
    for name in query.attribute_facets:
        facets[f"attributes.{name}"] = ranked(f"attributes.{name}", [[shown(p, name)] for p in products])
    return facets


async def every_page(
    search: ElasticProductSearch, query: Query, size: int, *, relaxed: Relaxed = Relaxed.NOTHING
) -> list[Hit]:
    hits: list[Hit] = []
    after: Position | None = None
    while True:
        page = await search.search(query, size=size, after=after, relaxed=relaxed)
        hits += page.hits
        if not page.more:
            return hits
        assert len(page.hits) == size
        after = page.hits[-1].position


@pytest.fixture
def search(engine: Engine, indices: Indices) -> ElasticProductSearch:
    return ElasticProductSearch(engine, indices)


async def emptied(engine: Engine) -> None:
    await engine.client.delete_by_query(index=f"{PRODUCTS},{PARTS}", query={"match_all": {}}, refresh=True)


@settings(QUICK, max_examples=40)
@given(shelves(), queries)
async def test_filters_and_facets_are_what_counting_by_hand_gives(
    engine: Engine, search: ElasticProductSearch, products: list[Product], query: Query
) -> None:
    await emptied(engine)
    await filled(engine, products)
    results = await search.search(query, size=50, after=None, relaxed=Relaxed.NOTHING)
    expected = [p for p in products if passes(p, query)]
    assert [hit.product.product_id for hit in results.hits] == [p.product_id for p in expected]
    assert results.total == len(expected)
    found = {facet.name: pairs(facet) for facet in results.facets}
    assert found.items() >= counted(products, query).items()
    assert list(found)[:4] == ["brand", "category", "price", "availability"]
    for facet in results.facets:
        for value in facet.values:
            alone = only(query, facet.name, value)
            assert value.count == sum(passes(p, alone) for p in products) > 0, (facet.name, value)
    for name in query.attributes or {}:
        assert query.attribute_facets or f"attributes.{name}" in found


def pairs(facet: Facet) -> list[tuple[str, int]]:
    return [(value.value, value.count) for value in facet.values]


def only(query: Query, facet: str, value: FacetValue) -> Query:
    """The query with this value of a facet and no other."""
    if facet == "brand":
        return replace(query, brands=[value.value])
    if facet == "category":
        return replace(query, categories=[value.value])
    if facet == "availability":
        return replace(query, availabilities=[Availability[value.value]])
    if facet == "price":
        assert isinstance(value.range, PriceRange)
        return replace(query, price_ranges=[value.range])
    wanted = value.range if isinstance(value.range, NumberRange) else value.value
    return replace(query, attributes={**(query.attributes or {}), facet.removeprefix("attributes."): [wanted]})


@settings(QUICK, max_examples=20)
@given(shelves(), st.sampled_from(Sort), st.sampled_from(["", "mug"]), st.integers(1, 7))
async def test_pages_hold_every_hit_once_in_order(
    engine: Engine, search: ElasticProductSearch, products: list[Product], sort: Sort, text: str, size: int
) -> None:
    await emptied(engine)
    await filled(engine, products)
    hits = await every_page(search, Query(text, sort=sort), size)
    found = [hit.product.product_id for hit in hits]
    if sort is Sort.NEWEST:
        assert found == [p.product_id for p in sorted(products, key=lambda p: (-p.created, p.product_id))]
        return
    if sort is Sort.RELEVANCE:
        assert [-hit.score for hit in hits] == sorted(-hit.score for hit in hits)
        assert sorted(found) == [p.product_id for p in products]
        return

    def key(p: Product) -> tuple[str, int]:
        assert p.price_from is not None
        return p.price_from.currency, p.price_from.nanos

    ordered = sorted(products, key=key, reverse=sort is Sort.PRICE_DESC)
    assert found == [p.product_id for p in ordered]


async def test_at_most_twenty_values_the_most_frequent_first(engine: Engine, search: ElasticProductSearch) -> None:
    await filled(engine, [item(f"p{n:02}", brand=f"brand {n % 24:02}") for n in range(60)])
    brands = (await search.search(Query(), size=1, after=None, relaxed=Relaxed.NOTHING)).facets[0]
    assert pairs(brands) == [(f"brand {n:02}", 3) for n in range(12)] + [(f"brand {n:02}", 2) for n in range(12, 20)]


async def test_more_hits_of_one_score_than_an_answer_may_have_are_still_paged_once(
    engine: Engine, search: ElasticProductSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "osmem" in str(await engine.client.info()):
        pytest.skip("osmem compares scores with more digits than it shows")
    await filled(engine, [item(f"p{n:03}", name="Red mug") for n in range(90)])
    monkeypatch.setattr(elastic_search, "_WINDOW", 40)
    hits = await every_page(search, Query("red mug"), 7)
    assert [hit.product.product_id for hit in hits] == [f"p{n:03}" for n in range(90)]


def item(product_id: str, name: str = "Mug", **fields: object) -> Product:
    variants = (Variant(f"SKU-{product_id}", Money("GBP", 10**9)),)
    return Product(product_id, 1, name=name, variants=variants, **fields)  # type: ignore[arg-type]


async def found(search: ElasticProductSearch, text: str) -> Results:
    return await search_products(Query(text), size=50, index=search)


def listed(results: Results) -> list[str]:
    return [hit.product.product_id for hit in results.hits]


async def ids(search: ElasticProductSearch, text: str) -> list[str]:
    return [hit.product.product_id for hit in (await found(search, text)).hits]


async def test_what_shoppers_type_finds_what_they_mean(engine: Engine, search: ElasticProductSearch) -> None:
    ean = "4006381333931"
    coded = Product("coded", 1, name="Pen", variants=(Variant("AB-12/x", Money("GBP", 1), "fine", (ean,)),))
    await filled(
        engine,
        [
            coded,
            item("cable", "USB-C cable", brand="Würth", attributes={"colour": "space grey", "fast_charging": True}),
            item("shirts", "Men's shirts", category=place(("Clothing", "Shirts")), description="Soft as a cloud"),
        ],
    )
    for text, expected in {
        "ab-12/X": "coded", ean: "coded", "fine pen": "coded",
        "usbc": "cable", "usb c": "cable", "WURTH cable": "cable", "space grey cable": "cable",
        "fast charging": "cable", "mens shirt": "shirts", "men's": "shirts", "clothing": "shirts", "cloud": "shirts",
    }.items():  # fmt: skip
        results = await found(search, text)
        assert (listed(results), results.relaxed) == ([expected], Relaxed.NOTHING), text


async def test_typing_errors_are_forgiven_only_where_nothing_matches(
    engine: Engine, search: ElasticProductSearch
) -> None:
    await filled(engine, [item("k", "Kettle"), item("n", "Nettle tea"), item("c", "Coffee mug")])
    exact, typo = await found(search, "kettle"), await found(search, "ketle")
    assert ([hit.product.product_id for hit in exact.hits], exact.relaxed) == (["k"], Relaxed.NOTHING)
    assert (typo.hits[0].product.product_id, typo.relaxed) == ("k", Relaxed.TYPOS)
    assert await ids(search, "coffe mug") == ["c"]
    assert await ids(search, "zzzzzz") == []
    # It matches, and only a filter is against it: then the filter counts.
    assert (await search_products(Query("kettle", brands=["Acme"]), size=5, index=search)).total == 0
    typo = await search_products(Query("ketle", attribute_facets=["x"], in_stock=True), size=5, index=search)
    assert typo.total == 0


@pytest.mark.parametrize(
    "text",
    [
        "!!!", "?", "*", "mug*", '"', '"mug', "\\", "mug\\", "(", "mug AND", "NOT", "name:mug", "_id:p", "/.*/",
        "mug~9", "[1 TO 2]", "{", "</em>", "<em>mug</em>", "\x00", "\x1f", "🎈", "日本 mug", "mug " * 64,
        "日" * 256, "abc " * 64, "a b " * 64, " ".join(f"w{n:03}" for n in range(51)),
        "m" * 256, "mug-" * 64, "ü" * 256, "' ' '",
    ],
)  # fmt: skip
async def test_no_text_is_too_strange(engine: Engine, search: ElasticProductSearch, text: str) -> None:
    await filled(engine, [item("p", "Mug"), item("q", "Cup & saucer")])
    results = await found(search, text)
    assert results.total == len(results.hits)
    assert all(hit.product.name == "Mug" for hit in results.hits)


async def test_a_long_text_stays_within_the_clauses_an_engine_takes(
    engine: Engine, search: ElasticProductSearch
) -> None:
    words = ["".join(letters) for letters in product("abcdefghijkl", repeat=3)]
    await filled(engine, [item("p", " ".join(words))])
    misspelt = " ".join(f"{word}z" for word in words[:51])
    results = await found(search, misspelt)
    assert ([hit.product.product_id for hit in results.hits], results.relaxed) == (["p"], Relaxed.TYPOS)
    assert await ids(search, " ".join(words[:64])) == ["p"]


async def test_a_highlight_is_html_with_nothing_but_the_marks(engine: Engine, search: ElasticProductSearch) -> None:
    await filled(engine, [item("p", 'Men\'s <b>mugs</b> & "cups" <em>', description="tea")])
    (marked,) = (await found(search, "mug cup")).hits
    assert marked.highlight == (
        "Men&#x27;s &lt;b&gt;<em>mugs</em>&lt;&#x2F;b&gt; &amp; &quot;<em>cups</em>&quot; &lt;em&gt;"
    )
    (plain,) = (await found(search, "tea")).hits
    assert "<em>" not in plain.highlight
    (typo,) = (await found(search, "mugz")).hits
    assert "<em>mugs</em>" in typo.highlight
