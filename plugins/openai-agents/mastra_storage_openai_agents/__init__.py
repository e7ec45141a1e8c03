"""Sessions of the OpenAI Agents SDK, on any backend of mastra-storage."""

from mastra_storage_openai_agents.session import MastraSession

__all__ = ["MastraSession"]
