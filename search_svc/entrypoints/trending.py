"""ListTrendingProducts: requests checked and mapped, the ranking as messages."""

from polymart.search.v1 import search_service_pb2 as pb

from chassis.rpc.paging import PageToken, Position, asked_page, fingerprint
from chassis.rpc.validation import Validator
from search_svc.application.popularity import Place, Trending, Window, trending_products
from search_svc.application.ports import Index, Sales, ShownProducts, Targets
from search_svc.application.projection import read_serving
from search_svc.domain.product import Product
from search_svc.protos import availability_to_proto

_PAGE, _LARGEST_PAGE = 20, 100
_CATEGORY_LENGTH = 7_500


class TrendingLister:
    """`token_key` signs page tokens."""

    def __init__(self, *, sales: Sales, targets: Targets, products: ShownProducts, window: Window, token_key: str):
        self._sales = sales
        self._targets = targets
        self._products = products
        self._window = window
        self._token_key = token_key

    async def list(self, request: pb.ListTrendingProductsRequest) -> pb.ListTrendingProductsResponse:
        check = Validator(request)
        check.check(len(request.category) <= _CATEGORY_LENGTH, "category", "is too long")
        size, page = asked_page(request, check, _place, default=_PAGE, maximum=_LARGEST_PAGE, key=self._token_key)
        check.done()
        since, after = page or (self._window.start, None)

        async def trending(index: Index) -> Trending:
            return await trending_products(
                since,
                category=request.category,
                size=size,
                after=after,
                sales=self._sales,
                index=index,
                products=self._products,
            )

        found = await read_serving(trending, targets=self._targets)
        response = pb.ListTrendingProductsResponse(products=[_product(*each) for each in found.products])
        response.since.FromMilliseconds(since)
        if found.more:
            last, units = found.products[-1]
            position: Position = {"since": since, "units": units, "id": last.product_id}
            response.next_page_token = PageToken.encode(position, fingerprint(request), self._token_key)
        return response


def _place(token: Position) -> tuple[int, Place]:
    """The start of the window, and the product behind which to go on. Raises KeyError or ValueError where the token is
    forged."""
    match token["since"], token["units"], token["id"]:
        case int(since), int(units), str(product_id) if 0 <= since < 10**14:
            return since, (units, product_id)
    raise ValueError(token)


def _product(product: Product, units: int) -> pb.TrendingProduct:
    price = product.price_from
    return pb.TrendingProduct(
        product_id=product.product_id,
        name=product.name,
        brand=product.brand,
        category_path=product.category.path,
        price_from=price.to_proto() if price else None,
        availability=availability_to_proto(product.best_availability),
        units=units,
    )
