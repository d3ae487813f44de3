"""The generations of the index on the engine, told apart and switched by aliases; and the record of the rebuild.

An index is called `<alias>-<generation>`, such as products-v3-000002. The aliases say all that the layout says:

- `<alias>`, such as products-v3, is what searches read;
- `<index>-filled` says that it has all that its sources have;
- `<index>-<epoch>` is the only name by which it is written. Every change of the layout takes these names away and gives
  new ones, in the one call that changes the rest: so a replica that hasn't noticed can't write, however long it slept.

The epoch's own name is on the index that holds the rebuild's record, where a change takes it away only if it is there.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from typing import Any

from elasticsearch import ConflictError, NotFoundError

from chassis.errors import Unavailable
from chassis.ids import uuid7
from search_svc.adapters.elastic_index import ElasticIndex
from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.mappings import (
    ANALYSIS,
    CATEGORIES,
    MAPPINGS,
    PARTS,
    PRODUCTS,
    REBUILD,
    SCHEMA_VERSION,
)
from search_svc.application.ports import Index, IndexMissing, Stored
from search_svc.domain.rebuild import Layout, Rebuild, Step

_KINDS = tuple(alias for alias in MAPPINGS if alias != REBUILD)
_RECORD = "rebuild"

Aliases = Mapping[str, Set[str]]  # by index


class Indices:
    """Generations. `version` is that of the mappings; indices of another version are as good as not there."""

    def __init__(self, engine: Engine, *, version: int = SCHEMA_VERSION):
        self._engine = engine
        self._version = version
        self._record = f"{self._alias(REBUILD)}-record"
        self._ours = {self._alias(kind) for kind in MAPPINGS}
        self._targets: Sequence[Index] | None = None

    async def ready(self) -> None:
        """Raises IndexMissing until the index is there and filled, Unavailable."""
        if not await self.built():
            raise IndexMissing

    async def built(self) -> bool:
        layout = await self.layout()
        if layout.serving is None:
            raise IndexMissing
        return layout.built

    async def name(self) -> str:
        """The index that searches for products read."""
        serving = (await self.layout()).serving
        if serving is None:
            raise IndexMissing
        return self.name_of(serving)

    def name_of(self, generation: int) -> str:
        return self._index(PRODUCTS, generation)

    def names_of(self, generation: int) -> Mapping[str, str]:
        """Its indices by kind."""
        return {kind: self._index(kind, generation) for kind in _KINDS}

    async def migrate(self) -> None:
        """An empty generation that serves, where there is none; idempotent, and safe when several do it."""
        await self.prepare()
        layout = await self.layout()
        if layout.serving is None:
            # One that another has begun is gone on with.
            generation = max(layout.present, default=layout.following)
            await self.create(generation)
            await self.change(layout, written=frozenset({generation}), filled=frozenset(), serving=generation)

    async def prepare(self) -> None:
        aliases = await self._aliases()
        if self._epoch(aliases):
            return
        # It tells of no layout: what there is of one, the written indices' names still say.
        if self._record in aliases:
            await self._delete([self._record])
        known = {mark for index in aliases for mark in _marks(index, aliases)} - {"filled"}
        epoch = min(known, default=uuid7())
        await self._create(self._record, REBUILD, self._alias(REBUILD), f"{self._record}-{epoch}")

    async def layout(self) -> Layout:
        return self._layout(await self._aliases())

    async def change(self, seen: Layout, *, written: Set[int], filled: Set[int], serving: int) -> bool:
        aliases = await self._aliases()
        if not seen.epoch or self._epoch(aliases) != seen.epoch:
            return False
        epoch = uuid7()
        wanted = {self._record: {self._alias(REBUILD), f"{self._record}-{epoch}"}}
        for kind in _KINDS:
            for generation in {serving, *written, *filled}:
                index = self._index(kind, generation)
                marks = {self._alias(kind): generation == serving, f"{index}-filled": generation in filled}
                marks[f"{index}-{epoch}"] = generation in written
                wanted[index] = {alias for alias, had in marks.items() if had}
        actions: list[dict[str, Any]] = []
        for index, has in aliases.items():
            to_have = wanted.get(index, set())
            # Aliases that somebody else made stay.
            removed = {alias for alias in has - to_have if alias in self._ours or alias.startswith(f"{index}-")}
            actions += [{"remove": {"index": index, "alias": alias, "must_exist": True}} for alias in sorted(removed)]
            actions += [{"add": {"index": index, "alias": alias}} for alias in sorted(to_have - has)]
        self.forget()
        with translated():
            try:
                answer = await self._engine.client.indices.update_aliases(actions=actions)
            except NotFoundError as error:
                if error.error != "aliases_not_found_exception":
                    raise
                return False
        if not answer["acknowledged"]:
            # It is done, but a node that hasn't heard of it takes writes under the old names.
            raise Unavailable("not all nodes of the search engine know of the change yet")
        return True

    async def create(self, generation: int) -> None:
        for kind in _KINDS:
            await self._create(self._index(kind, generation), kind)

    async def delete(self, generation: int) -> None:
        await self._delete([self._index(kind, generation) for kind in _KINDS])

    async def delete_earlier(self) -> None:
        families = "|".join(alias.rpartition("-v")[0] for alias in MAPPINGS)
        versioned = re.compile(rf"(?:{families})-v?(\d+)-\w+")
        with translated():
            found = await self._engine.client.indices.get_alias(index="product*", allow_no_indices=True)
        names = [name for name in found.body if (of := versioned.fullmatch(name)) and int(of[1]) < self._version]
        if names:
            await self._delete(sorted(names))

    async def refresh(self, generation: int) -> None:
        with translated():
            await self._engine.client.indices.refresh(index=[self._index(kind, generation) for kind in _KINDS])

    async def size(self, generation: int) -> int:
        parts, others = (
            self._index(PARTS, generation),
            [self._index(kind, generation) for kind in (PRODUCTS, CATEGORIES)],
        )
        with translated():
            # Of a SKU that was never stocked, inventory has no availability.
            stocked = await self._engine.client.count(index=parts, query={"exists": {"field": "version"}})
            other = await self._engine.client.count(index=others)
        return int(stocked["count"]) + int(other["count"])

    def index(self, generation: int, epoch: str) -> Index:
        return ElasticIndex(self._engine, {kind: f"{self._index(kind, generation)}-{epoch}" for kind in _KINDS})

    async def targets(self) -> Sequence[Index]:
        if self._targets is None:
            layout = await self.layout()
            if not layout.written:
                raise IndexMissing
            order = sorted(layout.written, key=lambda generation: generation == layout.serving)
            self._targets = [self.index(generation, layout.epoch) for generation in order]
        return self._targets

    def forget(self) -> None:
        self._targets = None

    async def rebuild(self) -> Stored[Rebuild] | None:
        with translated():
            answer = await self._engine.client.mget(index=self._alias(REBUILD), ids=[_RECORD])
        (found,) = answer["docs"]
        if "error" in found:
            raise IndexMissing
        if not found["found"]:
            return None
        document = dict(found["_source"]["rebuild"])
        document["step"] = Step[document["step"]]
        return Stored(Rebuild(**document), (found["_seq_no"], found["_primary_term"]))

    async def save(self, rebuild: Rebuild, revision: tuple[int, int] | None) -> tuple[int, int] | None:
        document = {"rebuild": {**asdict(rebuild), "step": rebuild.step.name}}
        expected: dict[str, Any] = (
            {"if_seq_no": revision[0], "if_primary_term": revision[1]} if revision else {"op_type": "create"}
        )
        with translated():
            try:
                answer = await self._engine.client.index(
                    index=self._alias(REBUILD), id=_RECORD, document=document, require_alias=True, **expected
                )
            except ConflictError:
                return None
        return answer["_seq_no"], answer["_primary_term"]

    def _alias(self, alias: str) -> str:
        return f"{alias.rpartition('-v')[0]}-v{self._version}"

    def _index(self, kind: str, generation: int) -> str:
        return f"{self._alias(kind)}-{generation:06}"

    async def _aliases(self) -> Aliases:
        pattern = ",".join([*(f"{self._alias(kind)}-*" for kind in _KINDS), f"{self._record}*"])
        with translated():
            answer = await self._engine.client.indices.get_alias(
                index=pattern, ignore_unavailable=True, allow_no_indices=True
            )
        return {index: set(found.get("aliases", ())) for index, found in answer.body.items()}

    def _epoch(self, aliases: Aliases) -> str:
        return min(_marks(self._record, aliases), default="")

    def _layout(self, aliases: Aliases) -> Layout:
        epoch = self._epoch(aliases)
        present = {
            int(number)
            for kind in _KINDS
            for index in aliases
            if (number := index.removeprefix(f"{self._alias(kind)}-")).isdecimal()
        }

        def marked(mark: str) -> frozenset[int]:
            """Those of which every index is there and has the mark."""
            return frozenset(
                generation
                for generation in present
                if all(mark in _marks(self._index(kind, generation), aliases) for kind in _KINDS)
            )

        serving = [n for n in present if self._alias(PRODUCTS) in aliases.get(self._index(PRODUCTS, n), ())]
        return Layout(
            epoch,
            present=frozenset(present),
            written=marked(epoch) if epoch else frozenset(),
            filled=marked("filled"),
            serving=max(serving, default=None),
        )

    async def _create(self, name: str, kind: str, *aliases: str) -> None:
        """Nothing where it is there already."""
        analysis = ANALYSIS if kind == PRODUCTS else None
        await self._engine.create_index(name, MAPPINGS[kind], *aliases, analysis=analysis)

    async def _delete(self, names: Sequence[str]) -> None:
        with translated():
            await self._engine.client.indices.delete(index=names, ignore_unavailable=True)


def _marks(index: str, aliases: Aliases) -> Set[str]:
    """What the index's own aliases say of it."""
    return {alias.removeprefix(f"{index}-") for alias in aliases.get(index, ()) if alias.startswith(f"{index}-")}
