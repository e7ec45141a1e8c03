"""Storage and sessions of Strands Agents, on any backend of mastra-storage."""

from typing import TYPE_CHECKING

__all__ = ["MastraStrandsRepository", "MastraStrandsSessionManager", "MastraStrandsStorage"]

if TYPE_CHECKING:
    from mastra_storage_strands.repository import MastraStrandsRepository
    from mastra_storage_strands.sessions import MastraStrandsSessionManager
    from mastra_storage_strands.storage import MastraStrandsStorage
else:
    _MODULES = {
        "MastraStrandsRepository": "repository",
        "MastraStrandsSessionManager": "sessions",
        "MastraStrandsStorage": "storage",
    }

    def __getattr__(name: str) -> object:
        """Import Strands when it is asked for: who copies the tables has no need of it."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
