"""Storage and sessions of Strands Agents, on any backend of mastra-storage."""

from mastra_storage_strands.sessions import MastraStrandsRepository, MastraStrandsSessionManager
from mastra_storage_strands.storage import MastraStrandsStorage

__all__ = ["MastraStrandsRepository", "MastraStrandsSessionManager", "MastraStrandsStorage"]
