"""Locations in PostgreSQL."""

from collections.abc import Callable

from chassis.postgres import Postgres
from inventory_svc.domain.locations import Location

_COLUMNS = "location_id, display_name, priority, version, created_at, updated_at"
_INSERT = f"""
INSERT INTO locations (location_id, display_name, priority) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""  # noqa: S608
_GET = f"SELECT {_COLUMNS} FROM locations WHERE location_id = $1"  # noqa: S608
_UPDATE = f"""
UPDATE locations SET display_name = $2, priority = $3, version = $4, updated_at = now()
WHERE location_id = $1 RETURNING {_COLUMNS}
"""  # noqa: S608
_PAGE = f"SELECT {_COLUMNS} FROM locations ORDER BY priority, location_id LIMIT $1"  # noqa: S608
_PAGE_AFTER = f"""
SELECT {_COLUMNS} FROM locations WHERE (priority, location_id) > ($2, $3) ORDER BY priority, location_id LIMIT $1
"""  # noqa: S608


class PostgresLocations:
    """`Locations` over the table of that name."""

    def __init__(self, db: Postgres):
        self._db = db

    async def add(self, location: Location) -> Location:
        row = await self._db.fetchrow(_INSERT, location.location_id, location.display_name, location.priority)
        # Locations are never removed: one that stood in the way stands there still.
        row = row or await self._db.fetchrow(_GET, location.location_id)
        assert row is not None
        return Location(*row)

    async def update(self, location_id: str, change: Callable[[Location], Location]) -> Location | None:
        async with self._db.transaction() as tx:
            if (row := await tx.fetchrow(f"{_GET} FOR NO KEY UPDATE", location_id)) is None:
                return None
            after = change(Location(*row))
            row = await tx.fetchrow(_UPDATE, location_id, after.display_name, after.priority, after.version)
            assert row is not None
            return Location(*row)

    async def page(self, *, after: tuple[int, str] | None, limit: int) -> list[Location]:
        rows = await (self._db.fetch(_PAGE_AFTER, limit, *after) if after else self._db.fetch(_PAGE, limit))
        return [Location(*row) for row in rows]
