"""SearchService: requests checked and mapped, results as messages."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from polymart.search.v1 import search_service_pb2 as pb
from polymart.search.v1.search_service_pb2_grpc import SearchServiceServicer

from chassis.money import Money, is_currency
from chassis.rpc.paging import PageToken, asked_page, fingerprint
from chassis.rpc.validation import Validator
from search_svc.application.ports import ProductSearch
from search_svc.application.search import search_products
from search_svc.domain.query import Hit, Position, PriceRange, Query, Results, Sort
from search_svc.entrypoints.trending import TrendingLister
from search_svc.protos import attribute_to_proto, availability_to_proto

_SORTS = {
    pb.SORT_ORDER_UNSPECIFIED: Sort.RELEVANCE,
    pb.SORT_ORDER_PRICE_ASC: Sort.PRICE_ASC,
    pb.SORT_ORDER_PRICE_DESC: Sort.PRICE_DESC,
}
_TEXT_LENGTH = 256
_FACETS = 10
_ATTRIBUTES = 50
_VALUES = 200
_PAGE, _LARGEST_PAGE = 20, 100
_HIGHEST_SCORE = 1e30  # far above all that occur, and within 32 bits

Context = grpc.aio.ServicerContext[Any, Any]


class SearchServicer(SearchServiceServicer):
    def __init__(self, index: ProductSearch, trending: TrendingLister):
        self._index = index
        self._trending = trending

    async def SearchProducts(self, request: pb.SearchProductsRequest, context: Context) -> pb.SearchProductsResponse:
        query, size, after, fuzzy = _checked(request)
        results = await search_products(query, size=size, after=after, fuzzy=fuzzy, index=self._index)
        return _response(results, fingerprint(request))

    async def GetIndexStatus(self, request: pb.GetIndexStatusRequest, context: Context) -> pb.IndexStatus:
        status = await self._index.status()
        return pb.IndexStatus(
            index=status.index,
            products=status.products,
            products_in_stock=status.products_in_stock,
            rebuilding=status.rebuilding,
        )

    async def ListTrendingProducts(
        self, request: pb.ListTrendingProductsRequest, context: Context
    ) -> pb.ListTrendingProductsResponse:
        return await self._trending.list(request)


def _checked(request: pb.SearchProductsRequest) -> tuple[Query, int, Position | None, bool]:
    """The query, the hits wanted, the position to go on from, and whether the page before allowed for typing errors.
    Raises InvalidArgument."""
    check = Validator(request)
    wanted = request.filter
    check.check(len(request.text) <= _TEXT_LENGTH, "text", f"must have at most {_TEXT_LENGTH} characters")
    check.check(request.sort in _SORTS, "sort", "is not a known order")
    _check_values(check, request.attribute_facets, "attribute_facets", _FACETS)
    _check_values(check, wanted.brands, "filter.brands", _VALUES)
    _check_values(check, wanted.categories, "filter.categories", _VALUES)
    names = [attribute.name for attribute in wanted.attributes]
    check.check(len(names) <= _ATTRIBUTES, "filter.attributes", f"must be at most {_ATTRIBUTES}")
    for i, attribute in enumerate(wanted.attributes):
        check.check(attribute.name not in names[:i], f"filter.attributes[{i}].name", "is there already")
        _check_values(check, attribute.values, f"filter.attributes[{i}].values", _VALUES)
    price = _price(check, wanted.price) if wanted.HasField("price") else None
    query = Query(
        text=request.text.strip(),
        brands=tuple(wanted.brands),
        categories=tuple(wanted.categories),
        attributes={attribute.name: tuple(attribute.values) for attribute in wanted.attributes},
        price=price,
        in_stock=wanted.in_stock,
        attribute_facets=tuple(request.attribute_facets),
        sort=_SORTS.get(request.sort, Sort.RELEVANCE),
    )
    size, page = asked_page(
        request,
        check,
        lambda token: (_position(token, query), bool(token.get("fuzzy"))),
        default=_PAGE,
        maximum=_LARGEST_PAGE,
    )
    check.done()
    return query, size, *(page or (None, False))


def _check_values(check: Validator, values: Sequence[str], field: str, most: int) -> None:
    check.check(len(values) <= most, field, f"must be at most {most}")
    for i, value in enumerate(values):
        check.check(bool(value), f"{field}[{i}]", "is empty")
        check.check(len(value) <= 7_500 if most > _FACETS else len(value) <= 256, f"{field}[{i}]", "is too long")
        if most == _FACETS:
            check.check(value not in values[:i], f"{field}[{i}]", "is there already")


def _price(check: Validator, price: pb.PriceRange) -> PriceRange:
    bounds: dict[str, int | None] = {}
    for name, given in (("min", price.HasField("min")), ("max", price.HasField("max"))):
        field = f"filter.price.{name}"
        try:
            amount = Money.from_proto(getattr(price, name)) if given else None
        except ValueError as error:
            check.check(False, field, str(error))
            amount = None
        if amount:
            check.check(amount.currency == price.currency_code, f"{field}.currency_code", "must be that of the range")
            check.check(amount.nanos >= 0, field, "must not be negative")
        bounds[name] = amount.nanos if amount else None
    low, high = bounds["min"], bounds["max"]
    check.check(low is None or high is None or low <= high, "filter.price.max", "must not be below min")
    code = price.currency_code
    check.check(not code or is_currency(code), "filter.price.currency_code", "must be a three-letter ISO 4217 code")
    return PriceRange(code, low, high)


def _position(token: Mapping[str, str | int], query: Query) -> Position:
    """Raises KeyError or ValueError where the token is forged."""
    position = json.loads(str(token["after"]))
    match position, query.sort:
        case [float(score), str(product_id), int(ties)], Sort.RELEVANCE if query.text:
            if 0 < score < _HIGHEST_SCORE and ties > 0:
                return score, product_id, ties
        case [str(product_id)], Sort.RELEVANCE if not query.text:
            return (product_id,)
        case [str(price), str(product_id)], Sort.PRICE_ASC | Sort.PRICE_DESC:
            return price, product_id
    raise ValueError(position)


def _response(results: Results, made_for: str) -> pb.SearchProductsResponse:
    token = ""
    if results.more and results.hits:
        token = PageToken.encode(
            {"after": json.dumps(results.hits[-1].position), "fuzzy": int(results.fuzzy)}, made_for
        )
    return pb.SearchProductsResponse(
        hits=[_hit(hit) for hit in results.hits],
        total_size=results.total,
        facets=[
            pb.Facet(name=facet.name, values=[pb.FacetValue(value=v, count=count) for v, count in facet.values])
            for facet in results.facets
        ],
        next_page_token=token,
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
    )
