"""The stores that each sentence of the contract is held against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.stores import NAMES, FullStore, OpenStore, store_or_skip

_MARKS = {"postgres": [pytest.mark.postgres]}


@pytest_asyncio.fixture(params=[pytest.param(name, marks=_MARKS.get(name, [])) for name in NAMES])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    async with store_or_skip(request.param, tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def store(opened: OpenStore) -> FullStore:
    return opened.store


@pytest_asyncio.fixture(params=[pytest.param("postgres", marks=pytest.mark.postgres)])
async def postgres(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    async with store_or_skip(request.param, tmp_path) as opened:
        yield opened
