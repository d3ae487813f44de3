"""Adding, changing and listing locations."""

from collections.abc import Mapping

from chassis.errors import AlreadyExists, stale_etag
from inventory_svc.application.ports import Locations
from inventory_svc.domain.locations import Location, unknown_locations


async def create_location(location: Location, *, locations: Locations) -> Location:
    """Add a location. Idempotent: the same again answers what is stored.

    Raises AlreadyExists if the id is taken by one that differs.
    """
    stored = await locations.add(location)
    if not stored.same_as(location):
        raise AlreadyExists(f"location {location.location_id} exists and differs", reason="LOCATION_EXISTS")
    return stored


async def update_location(
    location_id: str, changes: Mapping[str, str | int], *, etag: str, locations: Locations
) -> Location:
    """Replace the named fields. Raises NotFound, or Aborted if `etag` is given and isn't the current one."""

    def change(location: Location) -> Location:
        if etag and etag != location.etag:
            raise stale_etag("location", location_id)
        return location.changed(changes)

    if (location := await locations.update(location_id, change)) is None:
        raise unknown_locations([location_id])
    return location
