"""Sharing a store with the TypeScript store."""
