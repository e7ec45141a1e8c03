"""Storage and sessions of Strands Agents, on any backend of mastra-storage."""

from mastra_storage_strands.repository import MastraStrandsRepository
from mastra_storage_strands.sessions import MastraStrandsSessionManager
from mastra_storage_strands.storage import MastraStrandsStorage

__all__ = ["MastraStrandsRepository", "MastraStrandsSessionManager", "MastraStrandsStorage"]
