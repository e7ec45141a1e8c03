"""LangGraph on mastra-storage: checkpoints and long-term memory, on any backend.

from mastra_storage import open_storage
from mastra_storage_langgraph import MastraSaver, MastraStore

async with open_storage("sqlite:///agent.db") as storage:
    graph = builder.compile(checkpointer=MastraSaver(storage), store=MastraStore(storage))
"""

from typing import TYPE_CHECKING

__all__ = ["MastraSaver", "MastraStore"]

if TYPE_CHECKING:
    from mastra_storage_langgraph.saver import MastraSaver
    from mastra_storage_langgraph.store import MastraStore
else:
    _MODULES = {"MastraSaver": "saver", "MastraStore": "store"}

    def __getattr__(name: str) -> object:
        """Import LangGraph when it is asked for: who copies the tables has no need of it."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
