"""SearchService: requests checked and mapped, results as messages."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from polymart.search.v1 import search_service_pb2 as pb
from polymart.search.v1.search_service_pb2_grpc import SearchServiceServicer

from chassis.consistency import ConsistencyToken
from chassis.errors import Violation
from chassis.rpc.deadline import remaining
from chassis.rpc.paging import PageToken, asked_page, fingerprint
from chassis.rpc.validation import Validator
from search_svc.application.freshness import Freshness
from search_svc.application.ports import Completions, ProductSearch, Spelling
from search_svc.application.search import search_products
from search_svc.application.search_log import KEPT_DAYS, SearchCounts
from search_svc.application.suggestions import complete, did_you_mean
from search_svc.domain.query import Hit, Position, Query, Relaxed, Results, Sort
from search_svc.domain.suggestion import CompletionKind
from search_svc.entrypoints.filters import (
    check_currency,
    check_facets,
    check_filter,
    facet_message,
    read_attributes,
    read_availabilities,
    read_price,
    read_prices,
)
from search_svc.entrypoints.operation import Operation
from search_svc.entrypoints.trending import TrendingLister
from search_svc.protos import attribute_to_proto, availability_to_proto

_SORTS = {
    pb.SORT_ORDER_UNSPECIFIED: Sort.RELEVANCE,
    pb.SORT_ORDER_PRICE_ASC: Sort.PRICE_ASC,
    pb.SORT_ORDER_PRICE_DESC: Sort.PRICE_DESC,
    pb.SORT_ORDER_NEWEST: Sort.NEWEST,
}
_KINDS = {
    CompletionKind.PRODUCT: pb.COMPLETION_KIND_PRODUCT,
    CompletionKind.BRAND: pb.COMPLETION_KIND_BRAND,
    CompletionKind.CATEGORY: pb.COMPLETION_KIND_CATEGORY,
    CompletionKind.SEARCH: pb.COMPLETION_KIND_SEARCH,
}
_RELAXED = {
    Relaxed.NOTHING: pb.RELAXATION_UNSPECIFIED,
    Relaxed.TYPOS: pb.RELAXATION_TYPOS,
    Relaxed.FEWER_WORDS: pb.RELAXATION_FEWER_WORDS,
}
_TEXT_LENGTH = 256
_PAGE, _LARGEST_PAGE = 20, 100
_COMPLETIONS, _MOST_COMPLETIONS = 10, 20
_DAYS, _TEXTS, _MOST_TEXTS = 7, 50, 500
_HIGHEST_SCORE = 1e30  # far above all that occur, and within 32 bits

Context = grpc.aio.ServicerContext[Any, Any]


class SearchServicer(SearchServiceServicer):
    """`token_key` signs page tokens."""

    def __init__(
        self,
        index: ProductSearch,
        trending: TrendingLister,
        *,
        completions: Completions,
        spelling: Spelling,
        searches: SearchCounts,
        operation: Operation,
        freshness: Freshness,
        token_key: str,
    ):
        self._index = index
        self._trending = trending
        self._completions = completions
        self._spelling = spelling
        self._searches = searches
        self._operation = operation
        self._freshness = freshness
        self._token_key = token_key

    async def SearchProducts(self, request: pb.SearchProductsRequest, context: Context) -> pb.SearchProductsResponse:
        wanted, told = _taken(request, self._token_key)
        query, size, after, relaxed = _checked(request, self._token_key, told)

        async def search() -> Results:
            return await search_products(query, size=size, after=after, relaxed=relaxed, index=self._index)

        if wanted is None:
            results = await search()
        else:
            results = await self._freshness.read(
                wanted.aggregate_id, wanted.version, within=remaining() or 0, query=search
            )
        response = _response(results, fingerprint(request), self._token_key)
        if after is None and query.text:
            self._searches.note(query.text, found=bool(results.total) and results.relaxed is Relaxed.NOTHING)
            response.did_you_mean = await did_you_mean(query, results, spelling=self._spelling, index=self._index)
        return response

    async def SuggestCompletions(
        self, request: pb.SuggestCompletionsRequest, context: Context
    ) -> pb.SuggestCompletionsResponse:
        check = Validator(request)
        _check_text(check, request.text)
        size = _size(check, request.page_size, _COMPLETIONS, _MOST_COMPLETIONS)
        check.done()
        found = await complete(
            request.text.strip(), size=size, popular=self._searches.popular, completions=self._completions
        )
        return pb.SuggestCompletionsResponse(
            completions=[
                pb.Completion(text=each.text, kind=_KINDS[each.kind], product_id=each.product_id) for each in found
            ]
        )

    async def ListSearchedTexts(
        self, request: pb.ListSearchedTextsRequest, context: Context
    ) -> pb.ListSearchedTextsResponse:
        check = Validator(request)
        check.check(0 <= request.days <= KEPT_DAYS, "days", f"must be from 1 to {KEPT_DAYS}, or 0 for {_DAYS}")
        size = _size(check, request.page_size, _TEXTS, _MOST_TEXTS)
        check.done()
        found = await self._searches.top(request.days or _DAYS, without_hits=request.without_hits, most=size)
        return pb.ListSearchedTextsResponse(
            texts=[
                pb.SearchedText(text=each.text, searches=each.searches, searches_without_hits=each.without_hits)
                for each in found
            ]
        )

    async def GetIndexStatus(self, request: pb.GetIndexStatusRequest, context: Context) -> pb.IndexStatus:
        return await self._operation.status()

    async def StartRebuild(self, request: pb.StartRebuildRequest, context: Context) -> pb.IndexStatus:
        return await self._operation.start_rebuild()

    async def RollbackIndex(self, request: pb.RollbackIndexRequest, context: Context) -> pb.IndexStatus:
        return await self._operation.roll_back(request)

    async def DropOldIndex(self, request: pb.DropOldIndexRequest, context: Context) -> pb.IndexStatus:
        return await self._operation.drop_old()

    async def ListTrendingProducts(
        self, request: pb.ListTrendingProductsRequest, context: Context
    ) -> pb.ListTrendingProductsResponse:
        return await self._trending.list(request)


def _taken(request: pb.SearchProductsRequest, key: str) -> tuple[ConsistencyToken | None, list[Violation]]:
    """The consistency token, taken out of the request, since it is no part of what is asked; and what is wrong with
    it."""
    token = request.consistency_token
    request.ClearField("consistency_token")
    try:
        return ConsistencyToken.decode(token, key) if token else None, []
    except ValueError as error:
        return None, [Violation("consistency_token", str(error))]


def _checked(
    request: pb.SearchProductsRequest, key: str, told: Sequence[Violation]
) -> tuple[Query, int, Position | None, Relaxed]:
    """The query, the hits wanted, the position to go on from, and what was given up to find the page before.
    Raises InvalidArgument, with what is `told` already."""
    check = Validator(request)
    check.add(told)
    wanted = request.filter
    _check_text(check, request.text)
    check.check(request.sort in _SORTS, "sort", "is not a known order")
    check_facets(check, request.attribute_facets, "attribute_facets")
    check_currency(check, request.currency_code, "currency_code")
    check_filter(check, wanted)
    query = Query(
        text=request.text.strip(),
        brands=tuple(wanted.brands),
        categories=tuple(wanted.categories),
        attributes=read_attributes(check, wanted),
        price=read_price(check, wanted.price, "filter.price") if wanted.HasField("price") else None,
        price_ranges=read_prices(check, wanted),
        availabilities=read_availabilities(check, wanted),
        in_stock=wanted.in_stock,
        attribute_facets=tuple(request.attribute_facets),
        facets=not request.skip_facets,
        currency=request.currency_code,
        sort=_SORTS.get(request.sort, Sort.RELEVANCE),
        explain=request.explain,
    )
    size, page = asked_page(
        request,
        check,
        lambda token: (_position(token, query), Relaxed(token.get("relaxed"))),
        default=_PAGE,
        maximum=_LARGEST_PAGE,
        key=key,
    )
    check.done()
    return query, size, *(page or (None, Relaxed.NOTHING))


def _check_text(check: Validator, text: str) -> None:
    check.check(len(text) <= _TEXT_LENGTH, "text", f"must have at most {_TEXT_LENGTH} characters")


def _size(check: Validator, asked: int, default: int, maximum: int) -> int:
    check.check(asked >= 0, "page_size", "must not be negative")
    return min(asked or default, maximum)


def _position(token: Mapping[str, str | int], query: Query) -> Position:
    """Raises KeyError or ValueError where the token is forged."""
    position = json.loads(str(token["after"]))
    match position, query.sort:
        case [float(score), str(product_id), int(ties)], Sort.RELEVANCE if query.text:
            if 0 < score < _HIGHEST_SCORE and ties > 0:
                return score, product_id, ties
        case [str(product_id)], Sort.RELEVANCE if not query.text:
            return (product_id,)
        case [int(created), str(product_id)], Sort.NEWEST if 0 <= created < 2**53:
            return created, product_id
        case [str(price), str(product_id)], Sort.PRICE_ASC | Sort.PRICE_DESC:
            return price, product_id
    raise ValueError(position)


def _response(results: Results, made_for: str, key: str) -> pb.SearchProductsResponse:
    token = ""
    if results.more and results.hits:
        token = PageToken.encode(
            {"after": json.dumps(results.hits[-1].position), "relaxed": results.relaxed.value}, made_for, key
        )
    return pb.SearchProductsResponse(
        hits=[_hit(hit) for hit in results.hits],
        total_size=results.total,
        total_size_is_minimum=results.at_least,
        facets=map(facet_message, results.facets),
        next_page_token=token,
        relaxed=_RELAXED[results.relaxed],
    )


def _hit(hit: Hit) -> pb.SearchHit:
    product = hit.product
    price = product.price_from
    return pb.SearchHit(
        product_id=product.product_id,
        name=product.name,
        brand=product.brand,
        category_path=product.category.path,
        price_from=price.to_proto() if price else None,
        availability=availability_to_proto(product.best_availability),
        highlight=hit.highlight,
        score=hit.score,
        attributes={name: attribute_to_proto(value) for name, value in product.attributes.items()},
        product_version=product.version,
        explanation=[pb.ScorePart(name=p.name, value=p.value, factor=p.factor) for p in hit.explanation],
    )
