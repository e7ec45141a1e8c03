"""Saves messages with the time in them, as another process: URL, thread, how many, seconds between.

The deploy key is in `CONVEX_DEPLOY_KEY`. Each message holds when its save began; when it had
returned is printed, a line each.
"""

from __future__ import annotations

import asyncio
import sys
import time

from mastra_storage_convex import ConvexStorage

from mastra_storage import Message


async def main(url: str, thread_id: str, count: str, pause: str) -> None:
    async with ConvexStorage(convex_url=url) as storage:
        for number in range(int(count)):
            await storage.save_message(
                Message(id=f"w{number}", thread_id=thread_id, role="user", content=time.time())
            )
            sys.stdout.write(f"{time.time()}\n")
            await asyncio.sleep(float(pause))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
