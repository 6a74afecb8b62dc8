"""The command `stepwell` where the server extra is not installed, and the parts of hosting that decide."""

from __future__ import annotations

import importlib.util

import pytest
from stepwell import __main__ as entry
from stepwell_server.cli.apps import backoff_s


def test_without_the_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "find_spec", lambda name: None if name == "rich" else importlib.util.find_spec(name))
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
    assert 'pip install "stepwell[server]"' in capsys.readouterr().err


def test_a_crashing_app_is_started_ever_more_slowly() -> None:
    assert [backoff_s(crashes) for crashes in (1, 2, 3, 4, 5, 6, 10_000)] == [0.5, 1, 2, 4, 8, 10, 10]
