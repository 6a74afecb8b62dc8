"""Fixtures of the conformance tests."""

from tests.support.databases import databases

__all__ = ["databases"]
