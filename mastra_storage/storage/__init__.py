"""`Storage`: what users call. One module a domain, all on the same engine."""

from __future__ import annotations

from mastra_storage.storage.evals import Evals
from mastra_storage.storage.live import Live
from mastra_storage.storage.messages import Messages
from mastra_storage.storage.resources import Resources
from mastra_storage.storage.tables import Tables
from mastra_storage.storage.threads import Threads
from mastra_storage.storage.traces import Traces
from mastra_storage.storage.workflows import Workflows

__all__ = ["Storage"]


class Storage(Threads, Messages, Workflows, Traces, Evals, Resources, Tables, Live):
    """Threads, messages, workflow runs, traces, evals and working memory, on any backend.

    Use it in `async with`; `open_storage(url)` makes one for a URL:

        async with open_storage("sqlite:///agent.db") as storage:
            await storage.save_thread(Thread(id="t1", resource_id="user-1"))
            await storage.save_message(Message(thread_id="t1", role="user", content="Hello"))

    Every method raises only `StorageError`s on purpose. Calls may run concurrently, and be
    cancelled at any time: a cancelled write may or may not have been stored, whole.
    """
