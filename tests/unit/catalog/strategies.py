"""Products for hypothesis: good ones."""

from hypothesis import strategies as st

from catalog_svc.domain.product import Details, MediaLink, Status, Variant
from catalog_svc.domain.rules import ean_check_digit
from chassis.money import Money

words = st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1, max_size=12)
skus = st.from_regex(r"[A-Z]{1,2}[0-9]{1,3}", fullmatch=True)
eans = st.from_regex(r"([0-9]{7}|[0-9]{11,13})", fullmatch=True).map(lambda d: d + ean_check_digit(d))
attribute_names = words | st.sampled_from(["a.b", "$set", "100%", "%2E", "_id"])
attribute_values = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=20)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)


media = st.builds(MediaLink, skus.map(lambda sku: f"https://shop.example/{sku}"), st.just("") | words)
options = st.dictionaries(attribute_names, words, max_size=2)


@st.composite
def variants(draw: st.DrawFn, sku: st.SearchStrategy[str] = skus) -> Variant:
    price = Money(draw(st.sampled_from(["GBP", "USD"])), draw(st.integers(0, 10**15)))
    return Variant(
        sku=draw(sku),
        price=price,
        list_price=draw(st.none() | st.integers(0, 10**15).map(lambda more: Money(price.currency, price.nanos + more))),
        eans=tuple(draw(st.lists(eans, max_size=2))),
        name=draw(st.just("") | words),
        untracked=draw(st.booleans()),
        options=draw(options),
        media=tuple(draw(st.lists(media, max_size=2))),
    )


@st.composite
def details(draw: st.DrawFn, sku: st.SearchStrategy[str] = skus) -> Details:
    return Details(
        name=draw(words),
        description=draw(st.just("") | words),
        brand=draw(st.just("") | words),
        status=draw(st.sampled_from(Status)),
        tags=tuple(draw(st.lists(words, max_size=2, unique=True))),
        media=tuple(draw(st.lists(media, max_size=2))),
        attributes=draw(st.dictionaries(attribute_names, attribute_values, max_size=4)),
        variants=tuple(draw(st.lists(variants(sku), min_size=1, max_size=3, unique_by=(_sku, _options)))),
    )


def _sku(variant: Variant) -> object:
    return variant.sku


def _options(variant: Variant) -> object:
    """What must be another one in each variant: its options, where there are any."""
    return frozenset(variant.options.items()) or variant.sku
