"""Convex as a backend of mastra-storage."""

from mastra_storage_convex.backend import ConvexBackend
from mastra_storage_convex.store import ConvexStorage

__all__ = ["ConvexBackend", "ConvexStorage"]
