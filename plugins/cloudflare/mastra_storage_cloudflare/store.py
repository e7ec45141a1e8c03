"""`CloudflareStore`: a `Storage` on Workers KV."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mastra_storage import InvalidArgumentError, Storage
from mastra_storage_cloudflare.backend import CloudflareBackend
from mastra_storage_cloudflare.options import Retention

__all__ = ["CloudflareStore"]


class CloudflareStore(Storage):
    """Storage on Workers KV, over the REST API or a Worker's bindings.

    Over REST, anywhere:

        CloudflareStore(account_id="…", api_token="…", namespace_prefix="myapp_")

    Inside a Python Worker:

        CloudflareStore(bindings={"threads": env.THREADS, "default": env.KV}, key_prefix="myapp_")

    - `account_id`, `api_token`: default to `CLOUDFLARE_ACCOUNT_ID` and `CLOUDFLARE_API_TOKEN`.
    - `namespace_prefix`, `key_prefix`: keep environments apart; both mean the same, so REST and
      bindings with one prefix share data.
    - `base_url`: another address of the API, for gateways and tests; defaults to
      `CLOUDFLARE_BASE_URL`, or the API itself.
    - `bindings`: KV namespaces by table name, with or without `mastra_`; `default` serves every
      table that has none of its own.
    - `interop`: "mastra" keeps records as the TypeScript store does, to share one store with it.
    - `retention`: how long rows are kept, by table: `{"traces": timedelta(days=30)}`; a table
      that no installed adapter names is given as the `Table` itself.
    """

    def __init__(
        self,
        *,
        account_id: str | None = None,
        api_token: str | None = None,
        namespace_prefix: str = "",
        base_url: str | None = None,
        bindings: Mapping[str, Any] | None = None,
        key_prefix: str = "",
        retention: Retention | None = None,
        interop: str | None = None,
        **options: Any,
    ) -> None:
        from mastra_storage_cloudflare.interop import interop_backend, title_prefix

        if namespace_prefix and key_prefix and namespace_prefix != key_prefix:
            raise InvalidArgumentError(
                "namespace_prefix and key_prefix mean the same; give one of them",
                backend="cloudflare",
            )
        prefix = namespace_prefix or key_prefix
        if bindings is not None:
            from mastra_storage_cloudflare.binding import BindingKV

            if account_id or api_token:
                raise InvalidArgumentError(
                    "give bindings, or account_id and api_token, not both", backend="cloudflare"
                )
            kv: Any = BindingKV(bindings, prefix=prefix)
        else:
            from mastra_storage_cloudflare.rest import BASE_URL, RestKV

            account_id = account_id or os.environ.get("CLOUDFLARE_ACCOUNT_ID")
            api_token = api_token or os.environ.get("CLOUDFLARE_API_TOKEN")
            if not account_id or not api_token:
                raise InvalidArgumentError(
                    "give account_id and api_token (or CLOUDFLARE_ACCOUNT_ID and "
                    "CLOUDFLARE_API_TOKEN), or bindings inside a Worker",
                    backend="cloudflare",
                )
            base_url = base_url or os.environ.get("CLOUDFLARE_BASE_URL") or BASE_URL
            titles = prefix if interop is None else title_prefix(prefix)
            kv = RestKV(account_id, api_token, prefix=titles, base_url=base_url)
        options |= {"prefix": prefix, "retention": retention}
        if interop is not None:
            super().__init__(interop_backend(interop, kv, titled=bindings is None, **options))
        else:
            super().__init__(CloudflareBackend(kv, **options))
