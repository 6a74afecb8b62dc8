"""What is the same of two failures, and what differs from run to run: in Python, Go and TypeScript."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.engine.fingerprints import MESSAGE_MOST, fingerprint, frame_of, normalised

MESSAGES = [
    ("no user 42 in 3.5 s", "no user <n> in <n> s"),
    ("balance is -12,50", "balance is <n>"),
    ("user 0f8fad5b-d9cb-469f-a165-70867728950e is gone", "user <uuid> is gone"),
    ("at 0xdeadBEEF, hash 9f86d081884c7d65", "at <hex>, hash <hex>"),
    ("run_01a20486aaaf7e6d657e0999ae8d4116 and cus_9s8df7", "<id> and <id>"),
    ("GET https://api.example.com/v1/users/7?q=1 failed: 503", "GET <url> failed: <n>"),
    ("cannot parse 'a b c' as \"date\"", "cannot parse <text> as <text>"),
    ("can't reach the host, won't retry", "can't reach the host, won't retry"),
    ("ada@example.com has no account", "<email> has no account"),
    ("'sku-1'", "<text>"),
    ("line one\n   line two\t3", "line one line two <n>"),
    ("deadbeef is a word of hex letters only", "deadbeef is a word of hex letters only"),
    ("s3 said v2", "s<n> said v<n>"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), MESSAGES)
def test_a_message_loses_what_differs_from_run_to_run(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_a_message_is_bounded() -> None:
    assert len(normalised("word " * 1_000_000)) == MESSAGE_MOST
    assert len(normalised("'" * 1_000_000)) <= MESSAGE_MOST


PYTHON = """\
  File "/srv/releases/17/.venv/lib/python3.12/site-packages/stepwell/host.py", line 88, in run
    return body()
  File "/srv/releases/17/shop/pay.py", line 31, in charge
    return gateway.post(amount)
  File "/srv/releases/17/.venv/lib/python3.12/site-packages/requests/api.py", line 59, in post
    raise ConnectionError(url)
"""
NODE = """\
    at Socket.connect (node:net:1024:11)
    at request (file:///srv/shop/node_modules/undici/index.js:10:3)
    at async charge (file:///srv/shop/src/pay.ts:31:9)
    at async file:///srv/shop/src/app.ts:12:5"""
GO = """\
goroutine 18 [running]:
runtime/debug.Stack()
\t/usr/local/go/src/runtime/debug/stack.go:26 +0x64
stepwell.example/stepwell.(*call).run.func1()
\t/root/go/pkg/mod/stepwell.example/stepwell@v0.1.0/bodies.go:66 +0x3c
panic({0x5a1b40?, 0xc0000140c0?})
\t/usr/local/go/src/runtime/panic.go:785 +0x132
main.charge(0x2a)
\t/srv/shop/pay.go:31 +0x1d
main.main.func2()
\t/srv/shop/main.go:12 +0x25
"""
STACKS = [
    (PYTHON, "charge (pay.py)"),
    (NODE, "charge (pay.ts)"),
    (GO, "main.charge (pay.go)"),
    ("    at file:///srv/shop/src/app.ts:12:5", "app.ts"),
    ("(what was thrown is no Error, so it has no stack)", ""),
    ("no stack\n\0at all", ""),
    ("", ""),
]


@pytest.mark.parametrize(("stack", "expected"), STACKS)
def test_the_deepest_place_of_the_users_code_is_found(stack: str, expected: str) -> None:
    assert frame_of(stack) == expected


def failed(message: str = "no user 42", stack: str = PYTHON, **more: Any) -> dict[str, Any]:
    return {"type": "ValueError", "message": message, "stack": stack, **more}


def carried(failure: dict[str, Any], key: str = "charge", type_: str = "StepError") -> dict[str, Any]:
    """As a step of any SDK passes a failure on."""
    text = failure["message"].rpartition(": ")[2] if failure["type"] == "StepError" else failure["message"]
    return {"type": type_, "message": f"{key}: ValueError: {text}", "cause": failure}


SAME = {
    "another run": failed("no user 7"),
    "another deployment": failed(stack=PYTHON.replace("/17/", "/18/").replace("line 31", "line 44")),
    "more of the message": failed("no  user\n42"),
}
OTHER = {
    "message": failed("no account 42"),
    "type": failed() | {"type": "KeyError"},
    "reason": failed(reason="TIMED_OUT"),
    "place": failed(stack=PYTHON.replace("in charge", "in refund")),
    "step": carried(failed()),
}


@pytest.mark.parametrize("other", SAME.values(), ids=SAME)
def test_the_same_error_has_one_fingerprint(other: dict[str, Any]) -> None:
    assert fingerprint(other) == fingerprint(failed())


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
def test_another_error_has_another_fingerprint(other: dict[str, Any]) -> None:
    assert fingerprint(other).digest != fingerprint(failed()).digest


def test_what_happened_first_counts_beneath_steps_and_invokes() -> None:
    told = fingerprint(carried(failed()))
    assert (told.type, told.message, told.frame, told.key) == ("ValueError", "no user <n>", "charge (pay.py)", "charge")
    nested = carried(carried(failed()) | {"reason": "RUN_FAILED"}, "billing/charge", "RunFailedError")
    assert fingerprint(nested).key == "billing/charge"
    assert fingerprint(nested)[1:5] == told[1:5]
    repeated = [fingerprint(carried(failed(), key)).digest for key in ("import 1-500", "import 501-900:2")]
    assert repeated[0] == repeated[1], "a step in a loop is one place"


def test_an_error_that_says_something_of_its_own_is_not_passed_over() -> None:
    own = {"type": "StepError", "message": "charge: I give up", "cause": failed()}
    told = fingerprint(own)
    assert (told.type, told.message, told.key) == ("StepError", "charge: I give up", "")
    assert told.frame == "charge (pay.py)", "its cause names the place"


ODD: list[dict[str, Any]] = [
    {},
    {"type": 7, "message": None, "stack": [], "cause": "x"},
    {"cause": {"cause": {}}},
    carried(carried({"type": "", "message": ""})),
]


@pytest.mark.parametrize("failure", ODD)
def test_a_failure_of_any_shape_has_a_fingerprint(failure: dict[str, Any]) -> None:
    assert len(fingerprint(failure).digest) == 16
