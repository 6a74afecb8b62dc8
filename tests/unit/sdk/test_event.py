"""What an event holds at a path."""

from __future__ import annotations

import pytest
from stepwell import UsageError
from stepwell.event import match_value
from stepwell.v1 import common_pb2, event_pb2

EVENT = event_pb2.Event(id="evt_1", name="a", data=common_pb2.Payload(data=b'{"o":{"n":1},"l":["a"],"s":"a"}'))


@pytest.mark.parametrize(("path", "value"), [("data.o.n", b"1"), ("data.l", b'["a"]'), ("name", b'"a"')])
def test_a_path_leads_through_objects(path: str, value: bytes) -> None:
    assert match_value(EVENT, path) == value


@pytest.mark.parametrize("path", ["data.l.0", "data.s.0", "data.o.x", "data.o.n.x", "nothing"])
def test_where_a_path_leads_nowhere_the_code_is_told(path: str) -> None:
    with pytest.raises(UsageError, match="holds nothing there"):
        match_value(EVENT, path)
