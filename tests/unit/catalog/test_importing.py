"""Imports over products in memory, beside what they would be one row after the other."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from catalog_svc.adapters.memory import MemoryProducts, MemoryTaxonomy
from catalog_svc.application.importing import Answer, Importer, Outcome, Row
from catalog_svc.application.ports import Saved
from catalog_svc.domain.product import Details, Product, ProductEvent, Variant, identity
from chassis.clock import ManualClock
from chassis.errors import Violation
from chassis.ids import sequential_ids
from chassis.money import Money


def row(number: int, product_id: str, *skus: str, name: str = "Mug") -> Row:
    return Row(number, product_id, Details(name=name, variants=tuple(Variant(s, Money("GBP", 1)) for s in skus)))


async def run(store: MemoryProducts, rows: Sequence[Row], taxonomy: MemoryTaxonomy | None = None) -> dict[int, Answer]:
    async with store.trial() as trial:
        importer = Importer(store, trial, taxonomy or MemoryTaxonomy(), ManualClock(), sequential_ids(), "import")
        answers = await importer.store(rows)
    assert sorted(answer.row for answer in answers) == sorted(r.number for r in rows)
    return {answer.row: answer for answer in answers}


async def test_bad_rows_in_the_middle_stop_no_other() -> None:
    fault = Violation("name", "is required")
    rows = [row(1, "p", "a"), Row(2, "", Details(), [fault]), row(3, "q", "b", "a"), row(4, "r", "c")]
    answers = await run(MemoryProducts(), rows)
    assert [answers[n].outcome.name for n in (1, 2, 3, 4)] == ["CREATED", "REJECTED", "REJECTED", "CREATED"]
    assert answers[2].violations == [fault]
    assert answers[3].violations == [Violation("variants[1].sku", "'a' belongs to product 'p'")]


async def test_the_same_again_writes_nothing() -> None:
    store = MemoryProducts()
    await run(store, [row(1, "p", "a"), row(2, "q", "b")])
    sent = len(store.outbox.entries)
    answers = await run(store, [row(1, "p", "a"), row(2, "q", "b", name="Cup")])
    assert [answers[n].outcome.name for n in (1, 2)] == ["UNCHANGED", "UPDATED"]
    assert len(store.outbox.entries) == sent + 1


ROWS = st.lists(
    st.tuples(
        st.sampled_from("pqr"),
        st.lists(st.sampled_from("abcd"), min_size=1, max_size=2, unique=True),
        st.sampled_from(["Mug", "Cup"]),
    ),
    max_size=12,
)


@given(ROWS, ROWS)
async def test_a_batch_is_like_its_rows_one_after_the_other(
    before: list[tuple[str, list[str], str]], batch: list[tuple[str, list[str], str]]
) -> None:
    together, apart = MemoryProducts(), MemoryProducts()
    for store in (together, apart):
        for number, (product_id, skus, name) in enumerate(before):
            await run(store, [row(number, product_id, *skus, name=name)])
    rows = [row(number, product_id, *skus, name=name) for number, (product_id, skus, name) in enumerate(batch)]
    answers = await run(together, rows)
    for one in rows:
        alone = (await run(apart, [one]))[one.number]
        assert (answers[one.number].outcome, answers[one.number].product_id) == (alone.outcome, alone.product_id)
    ids = ["p", "q", "r"]
    assert contents(await together.get(ids)) == contents(await apart.get(ids))


def contents(stored: object) -> dict[str, tuple[int, Details]]:
    assert isinstance(stored, dict)
    return {key: (p.version, p.details) for key, p in stored.items() if isinstance(p, Product)}


class Contested(MemoryProducts):
    """Writes of `losers` are refused, a number of times."""

    def __init__(self, losers: dict[str, int], outcome: Saved):
        super().__init__()
        self._losers = losers
        self._outcome = outcome

    async def _save(self, event: ProductEvent) -> Saved:
        product_id, _ = identity(event)
        if self._losers.get(product_id, 0):
            self._losers[product_id] -= 1
            return self._outcome
        return await super()._save(event)


async def test_rows_that_others_overtook_are_tried_again() -> None:
    store = Contested({"p": 1, "q": 4}, Saved.STALE)
    answers = await run(store, [row(1, "p", "a"), row(2, "q", "b"), row(3, "r", "c"), row(4, "p", "d")])
    assert {answer.outcome for answer in answers.values()} == {Outcome.CREATED, Outcome.UPDATED}


async def test_rows_that_are_overtaken_all_the_time_are_rejected_and_no_other() -> None:
    store = Contested({"q": 99}, Saved.SKU_TAKEN)
    answers = await run(store, [row(1, "p", "a"), row(2, "q", "b"), row(3, "q", "b"), row(4, "r", "c")])
    assert [answers[n].outcome.name for n in (1, 2, 4)] == ["CREATED", "REJECTED", "CREATED"]


async def test_a_product_whose_messages_pile_up_rejects_its_row() -> None:
    store = Contested({"p": 1}, Saved.BACKED_UP)
    answers = await run(store, [row(1, "p", "a"), row(2, "q", "b")])
    assert [answers[n].outcome.name for n in (1, 2)] == ["REJECTED", "CREATED"]


async def test_a_sku_whose_first_row_is_refused_goes_to_the_next_that_wants_it() -> None:
    store = Contested({"p": 1}, Saved.BACKED_UP)
    answers = await run(store, [row(1, "p", "a"), row(2, "q", "a", "b"), row(3, "r", "b"), row(4, "s", "c")])
    assert [answers[n].outcome.name for n in (1, 2, 3, 4)] == ["REJECTED", "CREATED", "REJECTED", "CREATED"]
    assert answers[3].violations == [Violation("variants[0].sku", "'b' belongs to product 'q'")]


async def test_rows_that_wait_for_one_that_is_overtaken_all_the_time_are_not_refused_with_it() -> None:
    answers = await run(Contested({"p": 99}, Saved.STALE), [row(1, "p", "a"), row(2, "q", "a")])
    assert [answers[n].outcome.name for n in (1, 2)] == ["REJECTED", "CREATED"]


async def test_a_row_that_is_rejected_leaves_no_category() -> None:
    store, taxonomy = MemoryProducts(), MemoryTaxonomy()
    await run(store, [row(1, "p", "a")], taxonomy)
    thief = replace(row(2, "q", "a"), category_path=("Home", "Lamps"))
    other = replace(row(3, "r", "b"), category_path=("Garden",))
    answers = await run(store, [thief, other, replace(row(4, "s", "b"), category_path=("Attic",))], taxonomy)
    assert [answers[n].outcome.name for n in (2, 3, 4)] == ["REJECTED", "CREATED", "REJECTED"]
    assert [category.name for category in (await taxonomy.tree()).listed()] == ["Garden"]


async def test_a_row_names_its_category_by_path_and_missing_ones_are_made_or_refused() -> None:
    store, taxonomy = MemoryProducts(), MemoryTaxonomy()
    made = [replace(row(n, f"p{n}", f"s{n}"), category_path=("Home", "Lamps")) for n in (1, 2)]
    other = replace(row(3, "p3", "s3"), category_path=("Home",))
    refused = replace(row(4, "p4", "s4"), category_path=("Garden",), create_category=False)
    answers = await run(store, [*made, other, refused], taxonomy)
    assert [answers[n].outcome.name for n in (1, 2, 3, 4)] == ["CREATED", "CREATED", "CREATED", "REJECTED"]
    assert answers[4].violations == [Violation("category_path", "there is no category Garden")]
    tree = await taxonomy.tree()
    assert [tree.path(category.category_id) for category in tree.listed()] == [("Home",), ("Home", "Lamps")]
    products = await store.get(["p1", "p2", "p3"])
    assert [tree.path(p.details.category_id) for p in products.values() if isinstance(p, Product)] == [
        ("Home", "Lamps"), ("Home", "Lamps"), ("Home",),
    ]  # fmt: skip
    again = await run(store, [*made, other], taxonomy)
    assert {answer.outcome.name for answer in again.values()} == {"UNCHANGED"}


async def test_a_row_that_is_only_validated_is_answered_and_not_stored() -> None:
    store, taxonomy = MemoryProducts(), MemoryTaxonomy()
    await run(store, [row(1, "p", "a")], taxonomy)
    tried = [
        row(1, "p", "a"), row(2, "p", "a", name="Cup"), row(3, "q", "b"), row(4, "r", "a"),
        replace(row(5, "s", "c"), category_path=("Home",)),
    ]  # fmt: skip
    answers = await run(store, [replace(each, validate_only=True) for each in tried], taxonomy)
    assert [answers[n].outcome.name for n in range(1, 6)] == [
        "UNCHANGED", "UPDATED", "CREATED", "REJECTED", "CREATED",
    ]  # fmt: skip
    assert set(await store.get(["p", "q", "s"])) == {"p"}
    assert len(store.outbox.entries) == 1
    assert (await taxonomy.tree()).categories == {}


@given(ROWS, ROWS)
async def test_rows_that_are_only_validated_are_answered_as_if_they_were_stored(
    before: list[tuple[str, list[str], str]], tried: list[tuple[str, list[str], str]]
) -> None:
    """Batch by batch of a stream: what the batches before would have done counts."""
    real, dry = MemoryProducts(), MemoryProducts()
    rows = [row(number, product_id, *skus, name=name) for number, (product_id, skus, name) in enumerate(tried)]
    for store in (real, dry):
        for number, (product_id, skus, name) in enumerate(before):
            await run(store, [row(number, product_id, *skus, name=name)])
    kept = contents(await dry.get(["p", "q", "r"]))
    async with dry.trial() as trial:
        importer = Importer(dry, trial, MemoryTaxonomy(), ManualClock(), sequential_ids())
        for one in rows:
            answer = (await run(real, [one]))[one.number]
            assert await importer.store([replace(one, validate_only=True)]) == [answer]
    assert contents(await dry.get(["p", "q", "r"])) == kept


async def test_a_row_of_an_unknown_category_or_type_is_rejected() -> None:
    lost = row(1, "p", "a")
    lost = replace(lost, details=replace(lost.details, category_id="nowhere", product_type_id="nothing"))
    (answer,) = (await run(MemoryProducts(), [lost])).values()
    assert [fault.field for fault in answer.violations] == ["category_id", "product_type_id"]
