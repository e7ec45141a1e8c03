"""LangGraph on mastra-storage: checkpoints and long-term memory, on any backend.

from mastra_storage import open_storage
from mastra_storage_langgraph import MastraSaver, MastraStore

async with open_storage("sqlite:///agent.db") as storage:
    graph = builder.compile(checkpointer=MastraSaver(storage), store=MastraStore(storage))
"""

from mastra_storage_langgraph.saver import MastraSaver
from mastra_storage_langgraph.store import MastraStore

__all__ = ["MastraSaver", "MastraStore"]
