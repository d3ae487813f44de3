"""Whatever products and SKUs can be."""

from hypothesis import strategies as st

from chassis.money import Money
from search_svc.domain.popularity import Popularity, Sale, Sold, popularity_of
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, SkuRecord, Variant

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# What an engine takes as a document's id.
keys = text.filter(lambda key: 0 < len(key.encode()) <= 512)
availabilities = st.builds(SkuAvailability, st.sampled_from(Availability), st.integers(1, 2**62))
values = text | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
amounts = st.integers(0, 9 * 10**18)
variants = st.builds(
    Variant,
    sku=keys,
    price=st.builds(Money, st.sampled_from(["GBP", "USD"]), amounts),
    name=text,
    eans=st.lists(st.from_regex("[0-9]{8}", fullmatch=True), max_size=2).map(tuple),
    untracked=st.booleans(),
    options=st.dictionaries(text, text, max_size=2),
)
categories = st.builds(Category, keys, st.lists(text, max_size=3).map(tuple), st.integers(0, 2**62))
popularities = st.builds(Popularity, st.integers(0, 2**40).map(popularity_of), st.integers(0, 2**62))
sold = st.builds(Sold, keys, st.just(""), st.integers(1, 2**40)) | st.builds(Sold, st.just(""), keys, st.integers(1, 9))
sales = st.builds(Sale, keys, st.integers(0, 2**50), st.lists(sold, max_size=3).map(tuple), st.integers(0, 2**50))
live = st.builds(
    Product,
    product_id=keys,
    version=st.integers(1, 2**62),
    deleted=st.just(False),
    name=text,
    description=text,
    brand=text,
    active=st.booleans(),
    category=categories,
    tags=st.lists(text, max_size=2).map(tuple),
    attributes=st.dictionaries(text, values, max_size=4),
    variants=st.lists(variants, min_size=1, max_size=3).map(tuple),
    availability=st.dictionaries(text, availabilities, max_size=3),
    created=st.integers(0, 2**53),
    popularity=popularities,
)
products = live | st.builds(Product, keys, st.integers(1, 2**62), deleted=st.just(True))
skus = st.builds(SkuRecord, keys, st.none() | availabilities, st.frozensets(keys, max_size=3))
