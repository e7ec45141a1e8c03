"""Moving whole stores: `import_lines`, `export_lines`, `copy_rows`, plain coroutines all three."""

from mastra_storage.cli.transfer.copying import Comparison, Copied, copy_rows
from mastra_storage.cli.transfer.exporting import Exported, export_lines
from mastra_storage.cli.transfer.importing import Imported, import_lines

__all__ = [
    "Comparison",
    "Copied",
    "Exported",
    "Imported",
    "copy_rows",
    "export_lines",
    "import_lines",
]
