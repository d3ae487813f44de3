"""Whatever is asked, the answer is right or says what is wrong with the request: never a fault of the service."""

import random

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from polymart.search.v1 import search_service_pb2 as pb

from tests.integration.search.support import LIMIT, Search, placed, product, refusal, updated

SEED = random.randrange(10**6)
SYNTAX = (
    "AND", "OR", "NOT", "&&", "||", "!", "(", ")", "{", "}", "[", "]", "^", '"', "~", "*", "?", ":", "\\", "/", "name:",
    "_id:x", "[1 TO 2]", "mug~2", "<em>", "%00", "\x00", "\x1f", "🎈", "👩‍👩‍👧", "日本語", "ﷺ", "\u202e", "é",
    "e\u0301", "ß", "mug", "wireless", "' OR 1=1", "{{", "${x}", "\ufffe", "-1", "1e308", ".", "\n",
)  # fmt: skip

words = st.sampled_from(SYNTAX) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
texts = st.lists(words, max_size=12).map(" ".join) | st.text("!?*.,;:-_~\"'()[]{}\\/ ", max_size=300)
texts |= st.sampled_from(["x" * 10_000, "mug " * 2_500, "🎈" * 256, "m" * 256, "a b " * 64, "ab-" * 85])
numbers = st.floats() | st.none()
number_ranges = st.builds(pb.NumberRange, min=numbers, max=numbers, below=numbers)
amounts = st.none() | st.builds(
    dict, currency_code=st.sampled_from(["GBP", "EUR", "", "pound"]), units=st.integers(-(2**63), 2**63 - 1)
)
prices = st.builds(pb.PriceRange, currency_code=st.sampled_from(["GBP", "", "pound"]), min=amounts, below=amounts)
attributes = st.builds(
    pb.AttributeFilter, name=words, values=st.lists(words, max_size=3), ranges=st.lists(number_ranges, max_size=3)
)
filters = st.builds(
    pb.SearchFilter,
    brands=st.lists(words, max_size=3),
    categories=st.lists(words | st.just("Home > Lamps"), max_size=3),
    attributes=st.lists(attributes, max_size=3),
    price=st.none() | prices,
    price_ranges=st.lists(prices, max_size=2),
    availabilities=st.lists(st.integers(-1, 5), max_size=2),
)
sizes = st.sampled_from([0, 1, 5, 100, 10**9, 2**31 - 1, -1, -(2**31)])
requests = (
    st.builds(
        pb.SearchProductsRequest,
        text=texts,
        filter=st.none() | filters,
        attribute_facets=st.lists(words, max_size=4),
        page_size=sizes,
        page_token=st.just("") | words,
        sort=st.integers(-1, 5),
        currency_code=st.sampled_from(["", "GBP", "x"]),
    )
    | st.builds(pb.SuggestCompletionsRequest, text=texts, page_size=sizes)
    | st.builds(pb.ListSearchedTextsRequest, days=sizes, without_hits=st.booleans(), page_size=sizes)
    | st.builds(pb.ListTrendingProductsRequest, category=words, page_size=sizes, page_token=st.just("") | words)
)
METHODS = {
    pb.SearchProductsRequest: "SearchProducts",
    pb.SuggestCompletionsRequest: "SuggestCompletions",
    pb.ListSearchedTextsRequest: "ListSearchedTexts",
    pb.ListTrendingProductsRequest: "ListTrendingProducts",
}


async def stocked_with_a_few(search: Search) -> None:
    await search.publish(
        placed("lamps", "Home", "Lamps"),
        *updated(
            product("a", "Wireless mug", brand="Acme", attributes={"mug": 1.5, "é": "x", "-": True}),
            product("b", "Desk lamp", category_id="lamps", attributes={"mug": -3.0}),
            product("c", "日本語 🎈 AND lamp"),
        ),
    )
    await search.handled()


async def fuzzed(search: Search, examples: int) -> None:
    print(f"seed {SEED}")  # noqa: T201
    await stocked_with_a_few(search)
    outcomes: dict[str, int] = {}

    async def ask(request: object) -> None:
        call = getattr(search.stub, METHODS[type(request)])(request, timeout=LIMIT)
        code, details = (await call.code()).name, await call.details()
        assert code in ("OK", "INVALID_ARGUMENT"), f"{request}: {code} {details}"
        assert code == "OK" or details
        if code == "OK":
            answer = await call
            if isinstance(answer, pb.SearchProductsResponse):
                assert len(answer.hits) <= min(answer.total_size, 100)
            if isinstance(answer, pb.SuggestCompletionsResponse):
                assert len(answer.completions) <= 20
        outcomes[code] = outcomes.get(code, 0) + 1

    chosen: list[object] = []

    @seed(SEED)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def choose(request: object) -> None:
        chosen.append(request)

    choose()
    for request in chosen:
        await ask(request)
    print(outcomes)  # noqa: T201
    assert sum(outcomes.values()) >= examples
    assert outcomes.keys() == {"OK", "INVALID_ARGUMENT"}


async def test_no_request_is_too_strange(search: Search) -> None:
    await fuzzed(search, 300)


@pytest.mark.slow
async def test_none_of_thousands_of_requests_is_too_strange(search: Search) -> None:
    await fuzzed(search, 2_500)


async def test_what_is_too_much_is_refused_before_the_engine_sees_it(search: Search) -> None:
    await stocked_with_a_few(search)
    assert await refusal(search.find("x" * 10_000)) == ("INVALID_ARGUMENT", {"text"})
    many = [f"{n}" for n in range(1_000)]
    too_much = {
        "filter.brands": pb.SearchFilter(brands=many),
        "filter.categories": pb.SearchFilter(categories=many),
        "filter.attributes": pb.SearchFilter(attributes=[pb.AttributeFilter(name=n, values=["x"]) for n in many]),
        "filter.attributes[0].values": pb.SearchFilter(attributes=[pb.AttributeFilter(name="n", values=many)]),
        "filter.attributes[0].ranges": pb.SearchFilter(
            attributes=[pb.AttributeFilter(name="n", ranges=[pb.NumberRange(min=1)] * 1_000)]
        ),
        "filter.price_ranges": pb.SearchFilter(price_ranges=[pb.PriceRange(currency_code="GBP")] * 1_000),
        "filter.availabilities": pb.SearchFilter(availabilities=[1] * 1_000),
    }
    for field, wanted in too_much.items():
        assert await refusal(search.find(filter=wanted)) == ("INVALID_ARGUMENT", {field})
    assert await refusal(search.find(attribute_facets=many)) == ("INVALID_ARGUMENT", {"attribute_facets"})
    assert len((await search.find(page_size=10**9)).hits) == 3
    assert (await search.find("!?;,. \t")).total_size == 0


@pytest.mark.parametrize("text", [b"\xed\xa0\x80", b"\xff", b"mug\xc3"])
async def test_bytes_that_are_no_text_are_the_caller_s_fault(search: Search, text: bytes) -> None:
    """A lone surrogate, which no client's library encodes, too."""
    raw = search.channel.unary_unary("/polymart.search.v1.SearchService/SearchProducts")
    field = b"\x0a" + bytes([len(text)]) + text
    assert (await refusal(raw(field, timeout=LIMIT)))[0] == "INVALID_ARGUMENT"
    suggest = search.channel.unary_unary("/polymart.search.v1.SearchService/SuggestCompletions")
    assert (await refusal(suggest(field, timeout=LIMIT)))[0] == "INVALID_ARGUMENT"
