"""The layout of the TypeScript store `@mastra/cloudflare`, so that both share one store."""

from mastra_storage_cloudflare.interop.backend import (
    InteropBackend,
    interop_backend,
    title_prefix,
)

__all__ = ["InteropBackend", "interop_backend", "title_prefix"]
