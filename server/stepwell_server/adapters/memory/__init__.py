"""The store in memory: plain dictionaries, the oracle of the tests and of the simulation."""

from stepwell_server.adapters.memory.store import MemoryStore

__all__ = ["MemoryStore"]
