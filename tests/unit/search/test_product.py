"""What a product in the index is, whatever came first."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chassis.money import Money
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, SkuRecord, Variant

SKUS = ("A", "B", "C")
availabilities = st.builds(SkuAvailability, st.sampled_from(Availability), st.integers(1, 5))


def product(version: int, *skus: str, untracked: bool = False, price: str = "1.00", currency: str = "GBP") -> Product:
    variants = tuple(Variant(sku, Money.parse(currency, price), untracked=untracked) for sku in skus)
    return Product("P", version, name=f"version {version}", variants=variants)


def levels(**known: Availability) -> dict[str, SkuAvailability]:
    return {sku: SkuAvailability(level, 1) for sku, level in known.items()}


@given(st.permutations(range(1, 6)), st.lists(st.integers(1, 5)))
def test_the_newest_version_wins_in_any_order_and_however_often_it_comes(order: list[int], again: list[int]) -> None:
    current = product(order[0], "A")
    for version in [*order[1:], *again]:
        current = current.updated_by(product(version, "A"))
    assert current == product(5, "A")


@given(st.lists(availabilities, min_size=1).flatmap(lambda news: st.tuples(st.just(news), st.permutations(news))))
def test_the_newest_availability_wins_in_any_order(both: tuple[list[SkuAvailability], list[SkuAvailability]]) -> None:
    news, shuffled = both
    one, other = SkuRecord("A"), product(1, "A")
    for each in news:
        one = one.available(each)
    for each in [*shuffled, *shuffled]:
        other = other.with_availability({"A": each})
    assert one.availability is not None
    assert one.availability.version == max(each.version for each in news) == other.availability["A"].version


def test_availability_is_kept_only_for_the_skus_of_the_newest_version() -> None:
    known = product(1, "A", "B").with_availability(levels(A=Availability.LOW, B=Availability.OUT))
    assert known.updated_by(product(2, "B", "C")).availability == levels(B=Availability.OUT)
    assert known.updated_by(Product("P", 3, deleted=True)).availability == {}


def test_the_best_variant_says_whether_a_product_can_be_had() -> None:
    both = product(1, "A", "B")
    assert both.best_availability is Availability.OUT
    assert both.with_availability(levels(A=Availability.LOW)).best_availability is Availability.LOW
    assert both.with_availability(levels(A=Availability.LOW, B=Availability.IN_STOCK)).best_availability == 1
    assert product(1, "A", untracked=True).best_availability is Availability.IN_STOCK


def test_the_price_from_is_the_lowest_in_the_first_currency() -> None:
    pounds, dollars = product(1, "A", price="3.00"), product(1, "B", price="1.00", currency="USD")
    dear = product(1, "C", price="7.50")
    mixed = replace(pounds, variants=dear.variants + dollars.variants + pounds.variants)
    assert mixed.price_from == Money.parse("GBP", "3.00")
    assert Product("P", 1, deleted=True).price_from is None


def test_a_product_lies_in_its_category_and_all_above() -> None:
    assert Product("P", 1, category=Category("c", ("Home", "Lamps"), 1)).categories == ["Home", "Home > Lamps"]
    assert Product("P", 1).categories == []
