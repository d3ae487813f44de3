"""Holding products to the categories and product types that they name."""

from collections.abc import Collection, Mapping, Sequence

from catalog_svc.application.ports import Taxonomy
from catalog_svc.domain.category import Tree
from catalog_svc.domain.product import FIELDS, Details
from catalog_svc.domain.product_type import ProductType, value_violations
from chassis.errors import Violation


class References:
    """Categories and product types as they are now, as far as these products name them."""

    def __init__(self, tree: Tree, types: Mapping[str, ProductType]):
        self._tree = tree
        self._types = types

    @classmethod
    async def of(cls, products: Sequence[Details], taxonomy: Taxonomy) -> "References":
        tree = await taxonomy.tree() if any(details.category_id for details in products) else Tree()
        wanted = {details.product_type_id for details in products} - {""}
        return cls(tree, await taxonomy.types(wanted) if wanted else {})

    def violations(self, details: Details, fields: Collection[str] = FIELDS) -> list[Violation]:
        """What can't be of the category, and of the attributes if they or the type are among `fields`: products are
        held to a type that changed when they are next written there."""
        faults: list[Violation] = []
        if "category_id" in fields and details.category_id and details.category_id not in self._tree.categories:
            faults.append(Violation("category_id", f"there is no category {details.category_id!r}"))
        if details.product_type_id and {"attributes", "product_type_id"} & {*fields}:
            if type_ := self._types.get(details.product_type_id):
                faults += value_violations(type_, details.attributes)
            else:
                faults.append(Violation("product_type_id", f"there is no product type {details.product_type_id!r}"))
        return faults


async def reference_violations(
    details: Details, fields: Collection[str] = FIELDS, *, taxonomy: Taxonomy
) -> list[Violation]:
    """What can't be of the categories and product types that one product names."""
    return (await References.of([details], taxonomy)).violations(details, fields)
