"""Categories and product types as documents of MongoDB.

    categories      {"_id": category_id, "parent_id", "name", "version": int64, "etag", "created", "updated",
                     "path": […], "path_version": int64, "outbox": […], "pending": true}
    category_tree   {"_id": "tree", "version": int64, "told": int64, "change": a category without path | null}
    product_types   {"_id": product_type_id, "version": int64, "etag", "name", "created", "updated",
                     "attributes": [{"name", "kind", "unit", "values": […], "required", "facet", "searchable"}]}

All changes of categories take turns at the one document of `category_tree`: whoever moves its version on by one has
decided, and leaves there what is to be written. It is written and cleared by whoever comes next, be it the same caller
or, where that one died, another.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence

from bson import Int64
from pymongo import ASCENDING, UpdateOne
from pymongo.errors import DuplicateKeyError

from catalog_svc.adapters.mongo import MAX_UNSENT, Document, Mongo, missing_indexes, operation
from catalog_svc.adapters.mongo_documents import (
    category_from,
    category_to_document,
    type_from,
    type_to_document,
)
from catalog_svc.domain.category import Category, Tree
from catalog_svc.domain.product_type import ProductType
from catalog_svc.protos import category_envelope
from chassis.errors import Aborted
from chassis.outbox.mongo import MongoOutbox

_READS = 20
_TOLD_AT_ONCE = 500
_TREE = {"_id": "tree"}


class MongoTaxonomy:
    """`Taxonomy` in three collections."""

    def __init__(self, mongo: Mongo):
        self._categories = mongo.collection("categories")
        self._trees = mongo.collection("category_tree")
        self._types = mongo.collection("product_types")
        self._known = Tree()
        self.outbox = MongoOutbox(self._categories)

    async def migrate(self) -> None:
        """Make what is missing."""
        async with operation():
            first = {"version": Int64(0), "told": Int64(0), "change": None}
            with contextlib.suppress(DuplicateKeyError):  # another has just made it
                await self._trees.update_one(_TREE, {"$setOnInsert": first}, upsert=True)
        await self.outbox.ensure_index()

    async def missing(self) -> list[str]:
        """The indexes that aren't there, and the tree if it isn't."""
        async with operation():
            tree = await self._trees.find_one(_TREE, {"_id": 1})
        return [*await missing_indexes(self._categories, ["pending"]), *(() if tree else ("category_tree",))]

    async def tree(self) -> Tree:
        """Raises Aborted where the tree changes faster than it can be read."""
        for _ in range(_READS):
            head = await self._head()
            version, told = int(head["version"]), int(head["told"])
            # What others tell meanwhile shows here once all of it is told: until then it is told again, to no effect.
            if (self._known.version, self._known.told) == (version, told):
                return self._known
            async with operation():
                # All of them, on purpose: there are at most 10,000.
                documents = await self._categories.find({}, {"outbox": 0}).to_list(None)
            if (await self._head())["version"] == version:
                self._known = Tree(version, told, {d["_id"]: category_from(d) for d in documents})
                return self._known
        raise Aborted("the categories are being changed by others all the time; try again later")

    async def commit(self, before: Tree, category: Category) -> bool:
        document = category_to_document(category)
        change = {"$set": {"version": Int64(before.version + 1), "change": document}}
        async with operation():
            decided = await self._trees.update_one({**_TREE, "version": before.version, "change": None}, change)
            if decided.matched_count:
                await self._carry_out(before.version + 1, document)
                self._known = before.with_(category)
        return bool(decided.matched_count)

    async def tell(self, categories: Sequence[Category]) -> int:
        told = 0
        for start in range(0, len(categories), _TOLD_AT_ONCE):
            async with operation():
                result = await self._categories.bulk_write(
                    [self._telling(category) for category in categories[start : start + _TOLD_AT_ONCE]], ordered=False
                )
            told += result.matched_count
            self.outbox.nudge()
        if categories:
            self._known = Tree()  # it says what was told before
        return told

    async def all_told(self, version: int) -> None:
        async with operation():
            await self._trees.update_one({**_TREE, "told": {"$lt": version}}, {"$set": {"told": Int64(version)}})

    async def types(self, product_type_ids: Collection[str]) -> Mapping[str, ProductType]:
        async with operation():
            found = await self._types.find({"_id": {"$in": list(product_type_ids)}}).to_list(None)
        return {document["_id"]: type_from(document) for document in found}

    async def save_type(self, type_: ProductType) -> bool:
        document = type_to_document(type_)
        async with operation():
            if type_.version == 1:
                try:
                    await self._types.insert_one(document)
                except DuplicateKeyError:
                    return False
                return True
            before = {"_id": type_.product_type_id, "version": type_.version - 1}
            return bool((await self._types.replace_one(before, document)).matched_count)

    async def type_page(self, after: str, limit: int) -> Sequence[ProductType]:
        async with operation():
            cursor = self._types.find({"_id": {"$gt": after}}).sort([("_id", ASCENDING)]).limit(limit)
            return [type_from(document) for document in await cursor.to_list(None)]

    async def _head(self) -> Document:
        """The tree's document, once what was decided is carried out."""
        async with operation():
            while (head := await self._trees.find_one(_TREE)) and head["change"]:
                await self._carry_out(int(head["version"]), head["change"])
        return head or {"version": 0, "told": 0}

    async def _carry_out(self, version: int, category: Document) -> None:
        if category["version"] == 1:
            with contextlib.suppress(DuplicateKeyError):  # somebody did
                await self._categories.insert_one({**category, "path": [], "path_version": Int64(0), "outbox": []})
        else:
            before = {"_id": category["_id"], "version": category["version"] - 1}
            await self._categories.update_one(before, {"$set": category})
        await self._trees.update_one({**_TREE, "version": version}, {"$set": {"change": None}})

    def _telling(self, category: Category) -> UpdateOne:
        stale: Document = {
            "_id": category.category_id,
            "path_version": {"$lt": category.path_version},
            f"outbox.{MAX_UNSENT - 1}": {"$exists": False},
        }
        change = {"path": list(category.path), "path_version": Int64(category.path_version), "pending": True}
        message = self.outbox.embed([category_envelope(category)])
        return UpdateOne(stale, {"$set": change, "$push": {"outbox": {"$each": message}}})
