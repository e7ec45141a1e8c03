"""`ConvexStorage`: a `Storage` on a Convex deployment."""

from __future__ import annotations

from mastra_storage import Storage
from mastra_storage_convex.backend import ConvexBackend
from mastra_storage_convex.options import settings_of

__all__ = ["ConvexStorage"]


class ConvexStorage(Storage):
    """Storage on a Convex deployment that has the functions of this package.

        ConvexStorage(convex_url="https://cheerful-lemur-123.convex.cloud", deploy_key="…")

    - `convex_url`: the address of the deployment, http or https; defaults to `CONVEX_URL`, or
      `CONVEX_SELF_HOSTED_URL`.
    - `deploy_key`: its deploy key; defaults to `CONVEX_DEPLOY_KEY`, or
      `CONVEX_SELF_HOSTED_ADMIN_KEY`. A key of the environment is used with its own URL only.
    - `timeout`: seconds that a call may take, with all its attempts; 30 when not given.

    Raises `InvalidArgumentError` when the address or the key is missing or cannot be one.
    """

    def __init__(
        self,
        convex_url: str | None = None,
        deploy_key: str | None = None,
        *,
        timeout: float = 30.0,
    ) -> None:
        super().__init__(ConvexBackend(settings_of(convex_url, deploy_key, timeout=timeout)))
