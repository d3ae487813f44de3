"""polymart.catalog.v1.TaxonomyService over the use cases."""

from collections.abc import Mapping

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from polymart.catalog.v1 import category_pb2, product_type_pb2
from polymart.catalog.v1 import taxonomy_service_pb2 as messages
from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceServicer

from catalog_svc.application import taxonomy as use_cases
from catalog_svc.application.ports import Taxonomy
from catalog_svc.domain import category as categories
from catalog_svc.domain import product_type as types
from catalog_svc.domain.rules import id_violations
from catalog_svc.entrypoints.requests import Context
from catalog_svc.protos import category_message, read_definitions, type_message
from chassis.clock import Clock
from chassis.errors import InvalidArgument
from chassis.ids import NewId
from chassis.rpc.mask import masked_paths
from chassis.rpc.paging import PageToken, asked_page, fingerprint, text_in
from chassis.rpc.validation import Validator


class TaxonomyServicer(TaxonomyServiceServicer):
    """`token_key` signs the tokens of pages."""

    def __init__(self, *, taxonomy: Taxonomy, clock: Clock, new_id: NewId, token_key: str):
        self._taxonomy = taxonomy
        self._clock = clock
        self._new_id = new_id
        self._token_key = token_key

    async def CreateCategory(self, request: messages.CreateCategoryRequest, context: Context) -> category_pb2.Category:
        validator, given = Validator(request), request.category
        if request.HasField("category"):
            validator.add(categories.name_violations(given.name, "category.name"))
            if given.category_id:
                validator.add(id_violations(given.category_id, "category.category_id"))
        validator.done()
        tree, category = await use_cases.create_category(
            given.category_id,
            given.parent_id,
            given.name,
            categories=self._taxonomy,
            clock=self._clock,
            new_id=self._new_id,
        )
        return category_message(category, tree.path(category.category_id))

    async def GetCategory(self, request: messages.GetCategoryRequest, context: Context) -> category_pb2.Category:
        Validator(request).done()
        tree = await self._taxonomy.tree()
        return category_message(tree.get(request.category_id), tree.path(request.category_id))

    async def UpdateCategory(self, request: messages.UpdateCategoryRequest, context: Context) -> category_pb2.Category:
        validator, given = Validator(request, shallow=["category"]), request.category
        fields = _masked(request.update_mask, given, ("name", "parent_id"), validator)
        if request.HasField("category"):
            validator.add(id_violations(given.category_id, "category.category_id"))
        if "name" in fields:
            validator.add(categories.name_violations(given.name, "category.name"))
        validator.done()
        tree, category = await use_cases.update_category(
            given.category_id,
            name=given.name if "name" in fields else None,
            parent_id=given.parent_id if "parent_id" in fields else None,
            etag=given.etag,
            categories=self._taxonomy,
            clock=self._clock,
            new_id=self._new_id,
        )
        return category_message(category, tree.path(category.category_id))

    async def ListCategories(
        self, request: messages.ListCategoriesRequest, context: Context
    ) -> messages.ListCategoriesResponse:
        validator = Validator(request)
        size, after = asked_page(request, validator, _path_after, key=self._token_key)
        validator.done()
        tree = await self._taxonomy.tree()
        if request.ancestor_id:
            tree.get(request.ancestor_id)
        # A path is a key: no two categories have the same.
        listed = [(tree.path(category.category_id), category) for category in tree.listed(request.ancestor_id)]
        if after:
            listed = [(path, category) for path, category in listed if path > after]
        page = listed[:size]
        following = ""
        if len(listed) > size:
            following = PageToken.encode(
                {f"{depth}": name for depth, name in enumerate(page[-1][0])}, fingerprint(request), self._token_key
            )
        found = [category_message(category, path) for path, category in page]
        return messages.ListCategoriesResponse(categories=found, next_page_token=following)

    async def CreateProductType(
        self, request: messages.CreateProductTypeRequest, context: Context
    ) -> product_type_pb2.ProductType:
        validator, given = Validator(request), request.product_type
        definitions = read_definitions(given)
        if request.HasField("product_type"):
            faults = [*types.name_violations(given.name), *types.definition_violations(definitions)]
            if given.product_type_id:
                faults += id_violations(given.product_type_id, "product_type_id")
            validator.add(faults, "product_type.")
        validator.done()
        type_ = await use_cases.create_product_type(
            given.product_type_id,
            given.name,
            definitions,
            types=self._taxonomy,
            clock=self._clock,
            new_id=self._new_id,
        )
        return type_message(type_)

    async def GetProductType(
        self, request: messages.GetProductTypeRequest, context: Context
    ) -> product_type_pb2.ProductType:
        Validator(request).done()
        return type_message(await use_cases.get_product_type(request.product_type_id, types=self._taxonomy))

    async def UpdateProductType(
        self, request: messages.UpdateProductTypeRequest, context: Context
    ) -> product_type_pb2.ProductType:
        validator, given = Validator(request, shallow=["product_type"]), request.product_type
        fields = _masked(request.update_mask, given, ("name", "attributes"), validator)
        definitions = read_definitions(given)
        faults = types.name_violations(given.name) if "name" in fields else []
        faults += types.definition_violations(definitions) if "attributes" in fields else []
        if request.HasField("product_type"):
            faults += id_violations(given.product_type_id, "product_type_id")
        validator.add(faults, "product_type.")
        validator.done()
        change = use_cases.TypeChange(
            given.product_type_id,
            given.name if "name" in fields else None,
            definitions if "attributes" in fields else None,
            given.etag,
        )
        return type_message(
            await use_cases.update_product_type(change, types=self._taxonomy, clock=self._clock, new_id=self._new_id)
        )

    async def ListProductTypes(
        self, request: messages.ListProductTypesRequest, context: Context
    ) -> messages.ListProductTypesResponse:
        validator = Validator(request)
        size, after = asked_page(request, validator, _id_after, key=self._token_key)
        validator.done()
        found = await self._taxonomy.type_page(after or "", size + 1)
        token = ""
        if len(found) > size:
            last = {"after": found[size - 1].product_type_id}
            token = PageToken.encode(last, fingerprint(request), self._token_key)
        return messages.ListProductTypesResponse(product_types=map(type_message, found[:size]), next_page_token=token)


def _path_after(token: Mapping[str, str | int]) -> tuple[str, ...]:
    return tuple(text_in(token, f"{depth}") for depth in range(len(token)))


def _id_after(token: Mapping[str, str | int]) -> str:
    return text_in(token, "after")


def _masked(mask: FieldMask, given: Message, allowed: tuple[str, ...], validator: Validator) -> list[str]:
    """The fields that the mask names, its faults left with the validator."""
    try:
        return masked_paths(mask, given, allowed)
    except InvalidArgument as error:
        validator.add(error.violations)
        return [field for field in allowed if field in mask.paths]
