"""Random programs as JSON trees, and what each must come to: shared by simulation, verification and conformance.

A program is {"name", "on", "attempts", "body"}: `on` is the event that starts it ("" for one that is only invoked),
`attempts` those of the function, `body` a list of nodes that run in order. It may have `timeout_ms` and
`start_timeout_ms`, those of the function. The nodes, by their "do":

  run       name, ms, fails, attempts, catch    a body takes ms and raises in its first `fails` attempts
            effect, late, plain                 … effect: "add" or "set", counter, number: what it does to the world;
                                                late: before it raises, too; plain: the body is no coroutine
  sleep     name, ms
  wait      name, event, match, timeout_ms      value: n of the event's data, or null
  send      name, event                         sends {"uid": "<uid>/<name>", "n": …}
  invoke    name, program, timeout_ms, catch    the child's input is {"uid": "<uid>/<name>"}
  gather    branches: lists of nodes, how       all of them, side by side: by gather, wait or a group of tasks
  first     branches: nodes                     the first that has an outcome; the others are given up
  deadline  ms, node                            the node, or "late"
  raise     times                               the function itself raises in its first `times` attempts
  guard     body, cleanup: a node               cleanup is always run
  deadly    name, ms                            the first build's body kills its process; the next build mends it
  changed   before, new, after                  the first build has a body `before`; the next one a sleep `new`, and a
                                                sleep `after` of the name of the body

Names repeat only in sequence and deadlines stand in no gather, so keys follow from the tree. Every value is mixed into
a running checksum that bodies return, so the output shows any step that was lost, doubled, swapped or given another's
result. What a tree does not decide (who was first, which event came) the interpreter asks of the journal.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Node = dict[str, Any]
Program = dict[str, Any]
Effect = tuple[str, str, int]
"""Operation, counter, number."""
OWN = "own "
"""A counter of the run's own begins so: its name goes on with program and uid."""


def mix(*values: Any) -> str:
    """A checksum of JSON values, as every language computes it: CRC-32 of the compact JSON of the list, in hex."""
    return f"{zlib.crc32(json.dumps(values, separators=(',', ':')).encode()):08x}"


# -- what a program must come to -----------------------------------------------------------------------------------


class Recorded(NamedTuple):
    """An outcome that a run's code has seen. number: its place. failure: type of the failure, or empty."""

    number: int
    value: Any = None
    failure: str = ""


Oracle = Callable[[str], Recorded | None]
"""What the journal of the run holds under a key."""


class Failed(Exception):
    """An exception leaves the code. retriable: the function may be tried again."""

    def __init__(self, type_: str, *, retriable: bool = False) -> None:
        super().__init__(type_)
        self.type = type_
        self.retriable = retriable


@dataclass
class Expected:
    """How a run ends. runs: attempts of each body key that must be in the journal. children, sends: by key.

    effects: what its bodies do to counters, in the order of the code.
    """

    status: str = "COMPLETED"
    output: Any = None
    runs: dict[str, int] = field(default_factory=dict[str, int])
    children: dict[str, str] = field(default_factory=dict[str, str])
    sends: dict[str, str] = field(default_factory=dict[str, str])
    effects: dict[str, Effect] = field(default_factory=dict[str, Effect])


class _Interpreter:
    def __init__(self, uid: str, attempt: int, oracle: Oracle, outputs: Callable[[str, str], Any]) -> None:
        self.uid = uid
        self.attempt = attempt
        self.oracle = oracle
        self.outputs = outputs
        self.counts: dict[str, int] = {}
        self.expected = Expected()

    def key(self, name: str) -> str:
        count = self.counts[name] = self.counts.get(name, 0) + 1
        return name if count == 1 else f"{name}:{count}"

    def sequence(self, nodes: list[Node], acc: str) -> tuple[list[Any], str]:
        values: list[Any] = []
        for node in nodes:
            value = self.node(node, acc)
            values.append(value)
            acc = mix(acc, value)
        return values, acc

    def node(self, node: Node, acc: str) -> Any:
        match node["do"]:
            case "gather":
                return [self.sequence(branch, acc)[0] for branch in node["branches"]]
            case "first":
                return self.first(node["branches"], acc)
            case "deadline":
                return self.deadline(node, acc)
            case "raise":
                if self.attempt <= node["times"]:
                    raise Failed("ValueError", retriable=True)
                return "went on"
            case "changed":
                key = self.key(node["before"]["name"])
                seen = self.oracle(key)
                slept = seen is not None and seen.value is None and not seen.failure
                return self.step(node["after" if slept else "before"], key, acc)
            case "guard":
                try:
                    values, _ = self.sequence(node["body"], acc)
                finally:
                    self.step(node["cleanup"], self.key(node["cleanup"]["name"]), acc)
                return values
            case _:
                return self.step(node, self.key(node["name"]), acc)

    def step(self, node: Node, key: str, acc: str) -> Any:
        match node["do"]:
            case "run":
                last = min(node["fails"] + 1, node["attempts"])
                self.expected.runs[key] = last
                if node.get("effect") and (node["fails"] < node["attempts"] or node["late"]):
                    self.expected.effects[key] = effect_of(node, self.uid)
                if node["fails"] >= node["attempts"]:
                    return self.failed(node, "ValueError", f"failed:{last}")
                return mix(node["name"], self.uid, acc)
            case "deadly":
                self.expected.runs[key] = 1
                return mix(node["name"], self.uid, acc)
            case "wait":
                seen = self.oracle(key)
                return None if seen is None or seen.value is None else seen.value["data"]["n"]
            case "send":
                self.expected.sends[key] = f"{self.uid}/{node['name']}"
                return "sent"
            case "invoke":
                self.expected.children[key] = node["program"]
                seen = self.oracle(key)
                if seen is not None and seen.failure:
                    return self.failed(node, seen.failure, f"failed:{seen.failure}")
                return self.outputs(node["program"], f"{self.uid}/{node['name']}")
            case _:
                return "slept"

    def failed(self, node: Node, type_: str, value: str) -> str:
        if not node.get("catch"):
            raise Failed(type_)
        return value

    def first(self, branches: list[Node], acc: str) -> Any:
        keys = [self.key(node["name"]) for node in branches]
        numbered = [(seen.number, index) for index, key in enumerate(keys) if (seen := self.oracle(key)) is not None]
        if not numbered:
            return "nobody"
        won = min(numbered)[1]
        return [won, self.step(branches[won], keys[won], acc)]

    def deadline(self, node: Node, acc: str) -> Any:
        inner = node["node"]
        timer, key = self.key("$timer"), self.key(inner["name"])
        rang, seen = self.oracle(timer), self.oracle(key)
        if rang is not None and (seen is None or rang.number < seen.number):
            return "late"
        return self.step(inner, key, acc)


def expected(program: Program, uid: str, oracle: Oracle, outputs: Callable[[str, str], Any]) -> Expected:
    """What a run must end with. outputs: the output of a child, by program and uid."""
    attempt = 1
    while True:
        interpreter = _Interpreter(uid, attempt, oracle, outputs)
        result = interpreter.expected
        try:
            values, acc = interpreter.sequence(program["body"], mix(uid))
            result.output = {"values": values, "acc": acc}
            return result
        except Failed as error:
            if error.retriable and attempt < program["attempts"]:
                attempt += 1
                continue
            result.status, result.output = "FAILED", error.type
            return result


def effect_of(node: Node, uid: str) -> Effect:
    """What a body does to which counter."""
    operation, counter, number = node["effect"]
    return operation, f"{counter}/{uid}" if counter.startswith(OWN) else counter, number


def walk(nodes: list[Node]) -> list[Node]:
    """All nodes of a tree that stand for a step."""
    found: list[Node] = []
    for node in nodes:
        match node["do"]:
            case "gather":
                for branch in node["branches"]:
                    found.extend(walk(branch))
            case "first":
                found.extend(walk(node["branches"]))
            case "deadline":
                found.extend(walk([node["node"]]))
            case "guard":
                found.extend(walk([*node["body"], node["cleanup"]]))
            case "changed":
                found.extend(walk([node["before"], node["new"], node["after"]]))
            case "raise":
                pass
            case _:
                found.append(node)
    return found


# -- random programs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taste:
    """What programs are made of. weights: of the kinds of nodes. nodes: most in a body. depth: of nesting.

    layers: of functions that are only invoked, each of which invokes those below. counters: that bodies add to; none
    without. waits_ms: time-outs.
    """

    weights: dict[str, float]
    nodes: int = 5
    depth: int = 2
    longest_ms: int = 8_000
    timeouts: float = 0.0
    """Share of the programs that have time-outs of their own."""
    layers: int = 1
    counters: int = 0
    waits_ms: tuple[int, ...] = (500, 5_000, 30_000, 60_000)


PLAIN = Taste(
    {"run": 6, "repeat": 1, "sleep": 1.5, "wait": 2, "send": 1, "invoke": 1.5, "gather": 1.5, "first": 1.5,
     "deadline": 1, "raise": 0.5, "guard": 0.7},
    timeouts=0.25,
)  # fmt: skip
CHANGES = Taste({**PLAIN.weights, "changed": 5})
DEATHS = Taste({**PLAIN.weights, "deadly": 0.8})
COUNTERS = Taste(PLAIN.weights, nodes=4, longest_ms=1_500, layers=3, counters=12, waits_ms=(600_000,))
STEPS = Taste({"run": 6, "repeat": 1, "gather": 1}, nodes=6, depth=1)
WAITS = Taste({"run": 2, "wait": 5, "sleep": 0.5, "gather": 1}, nodes=4, depth=1)
RACES = Taste({"run": 2, "first": 5, "deadline": 2, "gather": 1}, nodes=4)


class Generator:
    """Draws programs from a seeded source."""

    def __init__(self, rng: random.Random, taste: Taste = PLAIN) -> None:
        self.rng = rng
        self.taste = taste
        self.names = 0
        self.programs: list[Program] = []

    def suite(self, count: int, events: int = 2) -> list[Program]:
        """Programs: children first (only invoked), then those that sent events start, then those for the driver."""
        children = max(1, count // 4)
        names: list[str] = []
        for layer in range(self.taste.layers):
            made = [self._program(f"child{layer * children + index}", "", 1, names) for index in range(children)]
            self.programs.extend(made)
            names = [*names, *(program["name"] for program in made)]
        self.programs.append(self._program("chained", "sim/chained", 1, [], sends=False))
        for index in range(count):
            on = f"sim/start{self.rng.randrange(events)}"
            self.programs.append(self._program(f"main{index}", on, self.taste.depth, names))
        return self.programs

    def _program(self, name: str, on: str, depth: int, children: list[str], *, sends: bool = True) -> Program:
        body = self._body(name, depth, children, sends and on != "")
        raises = any(node["do"] == "raise" for node in body)
        attempts = self.rng.choice((2, 3)) if raises else 2
        return {"name": name, "on": on, "attempts": attempts, "body": body, **self._timeouts()}

    def _timeouts(self) -> dict[str, int]:
        if not self.taste.timeouts or self.rng.random() >= self.taste.timeouts:
            return {}
        limits = {"timeout_ms": (300, 2_000, 10_000, 30_000), "start_timeout_ms": (50, 500, 3_000, 20_000)}
        return {name: self.rng.choice(limits[name]) for name in self.rng.choice((["timeout_ms"], list(limits)))}

    def _body(self, program: str, depth: int, children: list[str], sends: bool) -> list[Node]:
        count = self.rng.randint(1, self.taste.nodes)
        nodes: list[Node] = []
        for _ in range(count):
            nodes.extend(self._node(program, depth, children, sends))
        return nodes

    def _name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def _node(self, program: str, depth: int, children: list[str], sends: bool) -> list[Node]:
        weights = {kind: weight for kind, weight in self.taste.weights.items()
                   if not (kind in ("gather", "guard", "deadline") and depth <= 0)
                   and not (kind == "invoke" and not children) and not (kind == "send" and not sends)}  # fmt: skip
        rng = self.rng
        match rng.choices(list(weights), list(weights.values()))[0]:
            case "run":
                return [self._run(own=program if depth == self.taste.depth else "")]
            case "repeat":
                node = self._run()
                return [dict(node) for _ in range(rng.randint(2, 4))]
            case "gather":
                width = rng.randint(2, 4)
                branches = [self._body(program, depth - 2, children, sends)[:3] for _ in range(width)]
                how = rng.choice(("gather", "wait", "group")) if self.taste.counters else "gather"
                if how == "group":  # an exception would leave it in a group
                    for node in walk([node for branch in branches for node in branch]):
                        node.update({"catch": True} if "catch" in node else {})
                return [{"do": "gather", "branches": branches, "how": how}]
            case "first":
                return [{"do": "first", "branches": [self._branch(program, children) for _ in range(rng.randint(2, 3))]}]  # noqa: E501  # fmt: skip
            case "deadline":
                return [{"do": "deadline", "ms": self._ms(), "node": self._branch(program, children)}]
            case "raise":
                return [{"do": "raise", "times": rng.randint(1, 3)}] if depth == self.taste.depth else [self._run()]
            case "deadly":
                return (
                    [{**self._run(catch=True), "do": "deadly", "fails": 0}]
                    if depth == self.taste.depth
                    else [self._run()]
                )
            case "changed":
                before = {**self._run(catch=True), "fails": 0}
                new: Node = {"do": "sleep", "name": self._name("new"), "ms": self._ms()}
                after: Node = {**new, "name": before["name"]}
                changed: Node = {"do": "changed", "before": before, "new": new, "after": after}
                return [changed] if depth == self.taste.depth else [before]
            case "guard":
                return [{"do": "guard", "body": self._body(program, depth - 1, children, sends), "cleanup": self._run(catch=True)}]  # noqa: E501  # fmt: skip
            case "send":
                return [{"do": "send", "name": self._name("send"), "event": "sim/chained"}]
            case kind:
                return [self._simple(kind, program, children)]

    def _branch(self, program: str, children: list[str]) -> Node:
        kinds = ["run", "sleep", "wait", *(["invoke"] if children else [])]
        node = self._simple(self.rng.choice(kinds), program, children)
        node.pop("effect", None)  # nobody can say whether the body of a loser has run
        return node

    def _simple(self, kind: str, program: str, children: list[str]) -> Node:
        rng = self.rng
        match kind:
            case "run":
                return self._run()
            case "sleep":
                return {"do": "sleep", "name": self._name("sleep"), "ms": self._ms()}
            case "wait":
                name = self._name("wait")
                match = "data.uid" if rng.random() < 0.9 else ""
                return {"do": "wait", "name": name, "event": f"go/{program}/{name}", "match": match,
                        "timeout_ms": rng.choice(self.taste.waits_ms)}  # fmt: skip
            case _:
                timeout = self._ms() if rng.random() < 0.3 else 0
                return {"do": "invoke", "name": self._name("call"), "program": rng.choice(children),
                        "timeout_ms": timeout, "catch": rng.random() < 0.8}  # fmt: skip

    def _run(self, *, catch: bool | None = None, own: str = "") -> Node:
        rng = self.rng
        attempts = rng.randint(1, 3)
        fails = rng.choice((0, 0, 0, 0, 1, 1, 2, 3))
        catches = rng.random() < 0.85 if catch is None else catch
        ms = rng.choice((0, 0, 1, 5, 20, 200, 1_500))
        name = self._name("run")
        node = {"do": "run", "name": name, "ms": ms, "fails": fails, "attempts": attempts, "catch": catches}
        if self.taste.counters:
            shared = not own or rng.random() < 0.5
            counter = f"c{rng.randrange(self.taste.counters)}" if shared else f"{OWN}{own}"
            operation = "add" if shared else rng.choice(("add", "set"))
            effect = (operation, counter, rng.randint(1, 9))
            node |= {"effect": effect, "late": rng.random() < 0.5, "plain": rng.random() < 0.2}
        return node

    def _ms(self) -> int:
        return int(min(self.rng.expovariate(1 / 1_500) + 1, self.taste.longest_ms))
