"""`mastra-storage plugins`: which backends can be used here."""

from __future__ import annotations

from msgspec import Struct
from rich.text import Text

from mastra_storage.cli.console import output, print_json, shown, table
from mastra_storage.cli.options import AsJson
from mastra_storage.errors import PluginError
from mastra_storage.plugins import broken_tables, load_backend, load_tables, schemes
from mastra_storage.schema import TABLES

__all__ = ["Plugin", "installed", "plugins"]


class Plugin(Struct):
    """A URL scheme that is installed. `error` says why it cannot be used, if it cannot."""

    scheme: str
    distribution: str
    version: str
    error: str | None = None


def plugins(as_json: AsJson = False) -> None:
    """Show the installed backends, their versions, and what is broken and why.

    Each is imported, so that a broken one is found here and not in your agent.

    [dim]$[/] mastra-storage plugins
    """
    found = installed()
    if as_json:
        print_json(found)
        return
    result = table("Backends", "URL", "distribution", "version", "state")
    for plugin in found:
        state = Text("ready", style="green")
        if plugin.error is not None:
            state = Text("broken: ", style="red").append(shown(plugin.error))
        result.add_row(f"{plugin.scheme}://", plugin.distribution, plugin.version, state)
    output.print(result)
    output.print(_adapters(), highlight=False)


def installed() -> list[Plugin]:
    """All installed schemes; importing each tells whether it can be used."""
    found = []
    for scheme, distribution in sorted(schemes().items()):
        name, _, version = distribution.rpartition(" ")
        plugin = Plugin(scheme, name, version)
        try:
            load_backend(scheme)
        except PluginError as exc:
            plugin.error = str(exc)
        found.append(plugin)
    return found


def _adapters() -> Text:
    names = sorted(set(load_tables()) - set(TABLES))
    text = Text(f"Tables of adapters: {', '.join(names) or 'none'}", style="dim")
    for error in broken_tables():
        text.append("\nbroken: ", style="red").append(shown(error))
    return text
