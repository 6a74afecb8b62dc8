"""Redis or Valkey, for many nodes on one database."""

from stepwell_server.adapters.redis.peers import RedisPeers

__all__ = ["RedisPeers"]
