"""The command `stepwell`: starts servers, and asks a running one over its public API."""
