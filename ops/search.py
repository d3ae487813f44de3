"""Searches as a person sees them: hits and facets in tables."""

from polymart.inventory.v1.stock_pb2 import Availability
from polymart.search.v1.search_service_pb2 import (
    RELAXATION_FEWER_WORDS,
    RELAXATION_TYPOS,
    Facet,
    ListSearchedTextsResponse,
    ListTrendingProductsResponse,
    SearchProductsRequest,
    SearchProductsResponse,
)
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis.money import Money

_RELAXED = {
    RELAXATION_TYPOS: "nothing is spelt like that; these are spelt much like it",
    RELAXATION_FEWER_WORDS: "nothing has all of these words; these have some",
}


def availability_name(value: Availability.ValueType) -> str:
    return Availability.Name(value).removeprefix("AVAILABILITY_").replace("_", " ").lower()


def show(console: Console, request: SearchProductsRequest, response: SearchProductsResponse) -> None:
    """Print the hits of one page, then the facets side by side."""
    title = f'"{request.text}"' if request.text else "everything"
    filters = [*request.filter.brands, *request.filter.categories]
    filters += [f"{a.name} = {' or '.join(a.values)}" for a in request.filter.attributes]
    number = f"{response.total_size}" + (" or more" if response.total_size_is_minimum else "")
    if filters:
        title += f"  [{', '.join(filters)}]"
    table = Table(title=escape(f"{title}: {number} found"), title_justify="left", expand=False)
    for name in ("product", "name", "brand", "from", "stock"):
        table.add_column(name, justify="right" if name == "from" else "left", overflow="fold")
    for hit in response.hits:
        price = str(Money.from_proto(hit.price_from)) if hit.HasField("price_from") else "–"
        cells = (hit.product_id, hit.name, hit.brand, price, availability_name(hit.availability))
        table.add_row(*map(escape, cells))
    console.print(table)
    if response.relaxed in _RELAXED:
        console.print(_RELAXED[response.relaxed], style="yellow")
    for hit in response.hits:
        if hit.explanation:
            parts = ", ".join(f"{p.name} {'×' if p.factor else '+'}{p.value:.2f}" for p in hit.explanation)
            console.print(f"{hit.product_id}: {hit.score:.2f} = {parts}", markup=False, highlight=False)
    if response.did_you_mean:
        console.print(f"Did you mean: {response.did_you_mean}", markup=False)
    console.print(Columns([_facet(facet) for facet in response.facets if facet.values], padding=(0, 3)))


def show_trending(console: Console, response: ListTrendingProductsResponse) -> None:
    since = response.since.ToDatetime().strftime("%Y-%m-%d %H:%M")
    table = Table(title=f"confirmed since {since} UTC", title_justify="left", expand=False)
    for name in ("product", "name", "brand", "from", "stock", "units"):
        table.add_column(name, justify="right" if name in ("from", "units") else "left", overflow="fold")
    for product in response.products:
        price = str(Money.from_proto(product.price_from)) if product.HasField("price_from") else "–"
        stock, units = availability_name(product.availability), f"{product.units:,}"
        table.add_row(*map(escape, (product.product_id, product.name, product.brand, price, stock, units)))
    console.print(table)


def _facet(facet: Facet, most: int = 5) -> Table:
    name = facet.name.removeprefix("attributes.").replace("_", " ") + (f" ({facet.unit})" if facet.unit else "")
    table = Table(escape(name), "", box=None, header_style="italic", pad_edge=False)
    for value in facet.values[:most]:
        table.add_row(escape(value.value), str(value.count))
    if len(facet.values) > most:
        table.add_row("…", "")
    return table


def show_searches(console: Console, response: ListSearchedTextsResponse) -> None:
    table = Table("text", "searches", "without hits")
    for each in response.texts:
        table.add_row(escape(each.text), str(each.searches), str(each.searches_without_hits))
    console.print(table)
