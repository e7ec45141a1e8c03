"""Cloudflare Workers KV as a backend of mastra-storage."""

from mastra_storage_cloudflare.backend import CloudflareBackend
from mastra_storage_cloudflare.store import CloudflareStore

__all__ = ["CloudflareBackend", "CloudflareStore"]
