"""OpenTelemetry spans, kept as traces."""

from mastra_storage_opentelemetry.exporter import MastraSpanExporter
from mastra_storage_opentelemetry.mapping import RUN_ID, THREAD_ID, trace_of

__all__ = ["RUN_ID", "THREAD_ID", "MastraSpanExporter", "trace_of"]
