"""The embedded backends: `memory://` and `sqlite://`."""
