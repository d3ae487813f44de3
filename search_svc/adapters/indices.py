"""The indices: their making, and the record of who fills them."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elasticsearch import BadRequestError, ConflictError, NotFoundError

from chassis.errors import Unavailable
from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.mappings import ANALYSIS, CATEGORIES, MAPPINGS, PARTS, PRODUCTS, REBUILD, SCHEMA_VERSION
from search_svc.application.ports import IndexMissing

_LEASE_ID = "rebuild"


@dataclass(frozen=True, slots=True)
class _Existing:
    """The concrete index behind an alias."""

    name: str
    uuid: str

    @property
    def outdated(self) -> bool:
        return not self.name.rpartition("-")[0].endswith(f"-{SCHEMA_VERSION}")


@dataclass(frozen=True, slots=True)
class _Lease:
    """`until` is in seconds since 1970."""

    covers: str
    holder: str
    until: float
    complete: bool
    revision: tuple[int, int]


class Indices:
    """The indices behind their aliases: products, what is known by SKU, paths of categories, and the rebuild's lease.

    The lease names those it covers by their unique ids: where one is lost and made again, it counts no more.
    """

    def __init__(self, engine: Engine):
        self._engine = engine

    async def migrate(self) -> None:
        """Create what is missing, and indices of this version where there are those of another; idempotent, and safe
        when several do it."""
        existing = await self._existing()
        for alias in MAPPINGS:
            if (known := existing.get(alias)) is None:
                await self._create(alias)
            elif known.outdated:
                await self._replace(alias, known)

    async def prepare(self) -> None:
        existing = await self._existing()
        for alias in MAPPINGS:
            if alias not in existing:
                await self._create(alias)

    async def ready(self) -> None:
        """Raises IndexMissing until the index is there and filled, Unavailable."""
        if not await self.built():
            raise IndexMissing

    async def check_schema(self) -> None:
        """Raises Unavailable while the indices are of another version. Missing ones are no fault: they get made."""
        _check_version(await self._existing())

    async def built(self) -> bool:
        existing = await self._existing()
        if missing := MAPPINGS.keys() - existing.keys():
            raise IndexMissing(f"no index behind {', '.join(sorted(missing))}; it is being rebuilt")
        _check_version(existing)
        lease = await self._lease()
        return lease is not None and lease.complete and lease.covers == _covered(existing)

    async def name(self) -> str:
        """The index behind the alias of products."""
        try:
            return (await self._existing())[PRODUCTS].name
        except KeyError:
            raise IndexMissing from None

    async def take(self, holder: str, seconds: float) -> bool:
        return await self._write_lease(holder, until=time.time() + seconds, complete=False)

    async def complete(self, holder: str) -> bool:
        return await self._write_lease(holder, until=0, complete=True)

    async def _write_lease(self, holder: str, *, until: float, complete: bool) -> bool:
        existing = await self._existing()
        if not MAPPINGS.keys() <= existing.keys():
            raise IndexMissing
        covered = _covered(existing)
        lease = await self._lease()
        if lease and lease.covers == covered:
            mine = lease.holder == holder
            if lease.complete or not (mine or (lease.until < time.time() and not complete)):
                return False
        elif complete:
            return False
        document = {"covers": covered, "holder": holder, "until": until, "complete": complete}
        revision: dict[str, Any] = (
            {"if_seq_no": lease.revision[0], "if_primary_term": lease.revision[1]} if lease else {"op_type": "create"}
        )
        with translated():
            try:
                await self._engine.client.index(
                    index=REBUILD, id=_LEASE_ID, document=document, require_alias=True, **revision
                )
            except ConflictError:
                return False
        return True

    async def _lease(self) -> _Lease | None:
        with translated():
            answer = await self._engine.client.mget(index=REBUILD, ids=[_LEASE_ID])
        (found,) = answer["docs"]
        if "error" in found:
            raise IndexMissing
        if not found["found"]:
            return None
        return _Lease(**found["_source"], revision=(found["_seq_no"], found["_primary_term"]))

    async def _existing(self) -> dict[str, _Existing]:
        with translated():
            answer = await self._engine.client.indices.get(
                index=",".join(MAPPINGS), ignore_unavailable=True, allow_no_indices=True
            )
        found: dict[str, _Existing] = {}
        for name, index in answer.body.items():
            for alias in MAPPINGS.keys() & index.get("aliases", {}).keys():
                found[alias] = _Existing(name, index["settings"]["index"]["uuid"])
        return found

    async def _create(self, alias: str, *, aliased: bool = True) -> str:
        """One call makes index and alias, so that whoever comes first wins."""
        name = f"{alias}-{SCHEMA_VERSION}-000001"
        with translated():
            try:
                await self._engine.client.indices.create(
                    index=name,
                    aliases={alias: {}} if aliased else {},
                    settings={
                        "number_of_shards": 1,
                        "auto_expand_replicas": "0-1",
                        "refresh_interval": "1s",
                        "analysis": ANALYSIS if alias == PRODUCTS else {},
                    },
                    mappings={"dynamic": "strict", "properties": MAPPINGS[alias]},
                )
            except BadRequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
                if aliased:
                    # Somebody came first, or the index has lost its alias.
                    await self._engine.client.indices.put_alias(index=name, name=alias)
        return name

    async def _replace(self, alias: str, old: _Existing) -> None:
        new = await self._create(alias, aliased=False)
        actions: list[dict[str, Any]] = [
            {"remove_index": {"index": old.name}},
            {"add": {"index": new, "alias": alias}},
        ]
        # Where the old one is gone, somebody else has replaced it.
        with translated(), contextlib.suppress(NotFoundError):
            await self._engine.client.indices.update_aliases(actions=actions)


def _check_version(existing: Mapping[str, _Existing]) -> None:
    if outdated := sorted(index.name for index in existing.values() if index.outdated):
        raise Unavailable(f"{', '.join(outdated)} of another version; run `python -m search_svc migrate`")


def _covered(existing: Mapping[str, _Existing]) -> str:
    return " ".join(existing[alias].uuid for alias in (PRODUCTS, PARTS, CATEGORIES))
