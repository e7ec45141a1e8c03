"""An agent whose every run is kept as a trace; needs no model key.

python traced_agent.py "Oslo, please"
python traced_agent.py "And Rome?"
mastra-storage traces sqlite:///traced.db
"""

import asyncio
import sys

from mastra_storage_opentelemetry import MastraSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.capabilities.instrumentation import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.test import TestModel

from mastra_storage import open_storage


async def main(prompt: str, url: str = "sqlite:///traced.db") -> None:
    async with open_storage(url) as storage:
        async with MastraSpanExporter(storage) as exporter:
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            settings = InstrumentationSettings(tracer_provider=provider)
            # TestModel calls each tool once and says what it got: the runtime's own stand-in.
            agent = Agent(TestModel(), name="planner", capabilities=[Instrumentation(settings)])

            @agent.tool_plain
            def weather(city: str) -> str:
                return "sunny"

            await agent.run(prompt, conversation_id="trip")
        print(f"{exporter.saved} spans kept, {exporter.dropped} dropped")
        runs = await storage.get_traces(name="invoke_agent planner", thread_id="trip")
        print(f"{runs.total} runs in the conversation so far")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
