"""Resources: what is kept for a user or tenant across threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mastra_storage.arguments import id_argument
from mastra_storage.records import Resource
from mastra_storage.schema import RESOURCES, Row
from mastra_storage.storage._engine import Engine, operation
from mastra_storage.storage._merge import updated
from mastra_storage.validation import check_members

__all__ = ["Resources"]


class Resources(Engine):
    """The resource methods of `Storage`."""

    @operation
    async def save_resource(self, resource: Resource) -> Resource:
        """Store a resource, in place of the one with its id. Gives it as stored."""
        [saved] = await self._save(RESOURCES, [resource])
        return saved

    @operation
    async def get_resource(self, resource_id: str) -> Resource | None:
        """A resource, or `None`."""
        row = await self._get(RESOURCES, id_argument(resource_id, "resource_id"))
        return None if row is None else RESOURCES.record_of(row)

    @operation
    async def update_resource(
        self,
        resource_id: str,
        *,
        working_memory: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Resource:
        """Replace the working memory, and merge members into the metadata; `None` changes nothing.

        A resource that is not there is made. Gives the resource as it is now. To clear the
        working memory, give an empty value such as `{}` or "".
        """
        resource_id = id_argument(resource_id, "resource_id")
        given = {"working_memory": working_memory, "metadata": metadata}
        changes = check_members(Resource, {k: v for k, v in given.items() if v is not None})

        def change(old: Row | None) -> Row:
            if old is None:
                return self._first_row(RESOURCES, Resource(id=resource_id, **changes))
            return updated(old, changes, at=self._now(), version=self._version())

        return RESOURCES.record_of(await self._change(RESOURCES, (resource_id,), change))  # type: ignore[no-any-return]
