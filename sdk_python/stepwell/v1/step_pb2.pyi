from stepwell.v1 import common_pb2 as _common_pb2
from stepwell.v1 import event_pb2 as _event_pb2
from stepwell.v1 import function_pb2 as _function_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StepKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_KIND_UNSPECIFIED: _ClassVar[StepKind]
    STEP_KIND_RUN: _ClassVar[StepKind]
    STEP_KIND_SLEEP: _ClassVar[StepKind]
    STEP_KIND_EVENT: _ClassVar[StepKind]
    STEP_KIND_INVOKE: _ClassVar[StepKind]
    STEP_KIND_SEND: _ClassVar[StepKind]
    STEP_KIND_RETRY: _ClassVar[StepKind]
STEP_KIND_UNSPECIFIED: StepKind
STEP_KIND_RUN: StepKind
STEP_KIND_SLEEP: StepKind
STEP_KIND_EVENT: StepKind
STEP_KIND_INVOKE: StepKind
STEP_KIND_SEND: StepKind
STEP_KIND_RETRY: StepKind

class ConnectRequest(_message.Message):
    __slots__ = ("hello", "commands", "capacity", "heartbeat", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    commands: Commands
    capacity: Capacity
    heartbeat: Heartbeat
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., commands: _Optional[_Union[Commands, _Mapping]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class ConnectResponse(_message.Message):
    __slots__ = ("welcome", "work", "drain")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    work: Work
    drain: Drain
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., work: _Optional[_Union[Work, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("environment", "app", "deployment", "instance", "sdk", "sdk_version", "session_id", "functions", "capacity", "capabilities", "residents", "more", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SDK_FIELD_NUMBER: _ClassVar[int]
    SDK_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    RESIDENTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    environment: str
    app: str
    deployment: str
    instance: str
    sdk: str
    sdk_version: str
    session_id: str
    functions: _containers.RepeatedCompositeFieldContainer[_function_pb2.FunctionSpec]
    capacity: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    residents: _containers.RepeatedCompositeFieldContainer[Resident]
    more: bool
    labels: _containers.ScalarMap[str, str]
    def __init__(self, environment: _Optional[str] = ..., app: _Optional[str] = ..., deployment: _Optional[str] = ..., instance: _Optional[str] = ..., sdk: _Optional[str] = ..., sdk_version: _Optional[str] = ..., session_id: _Optional[str] = ..., functions: _Optional[_Iterable[_Union[_function_pb2.FunctionSpec, _Mapping]]] = ..., capacity: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ..., residents: _Optional[_Iterable[_Union[Resident, _Mapping]]] = ..., more: bool = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Resident(_message.Message):
    __slots__ = ("run_id", "turn", "parked")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    parked: bool
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., parked: bool = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session_id", "epoch", "lease_ms", "heartbeat_ms", "limits", "capabilities", "environment", "now_ms", "refused")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    lease_ms: int
    heartbeat_ms: int
    limits: Limits
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    environment: str
    now_ms: int
    refused: _containers.RepeatedCompositeFieldContainer[Resident]
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., lease_ms: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., capabilities: _Optional[_Iterable[str]] = ..., environment: _Optional[str] = ..., now_ms: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[Resident, _Mapping]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("event_bytes", "result_bytes", "failure_bytes", "journal_bytes", "journal_steps", "name_bytes", "key_bytes", "metadata_bytes", "branches", "frame_bytes")
    EVENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_BYTES_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    NAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    METADATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    event_bytes: int
    result_bytes: int
    failure_bytes: int
    journal_bytes: int
    journal_steps: int
    name_bytes: int
    key_bytes: int
    metadata_bytes: int
    branches: int
    frame_bytes: int
    def __init__(self, event_bytes: _Optional[int] = ..., result_bytes: _Optional[int] = ..., failure_bytes: _Optional[int] = ..., journal_bytes: _Optional[int] = ..., journal_steps: _Optional[int] = ..., name_bytes: _Optional[int] = ..., key_bytes: _Optional[int] = ..., metadata_bytes: _Optional[int] = ..., branches: _Optional[int] = ..., frame_bytes: _Optional[int] = ...) -> None: ...

class Commands(_message.Message):
    __slots__ = ("epoch", "results", "failures", "sleeps", "waits", "invokes", "sends", "delivered", "abandons", "parks", "releases", "mismatches", "completes", "fails", "cancelled")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    SLEEPS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    INVOKES_FIELD_NUMBER: _ClassVar[int]
    SENDS_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    ABANDONS_FIELD_NUMBER: _ClassVar[int]
    PARKS_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    MISMATCHES_FIELD_NUMBER: _ClassVar[int]
    COMPLETES_FIELD_NUMBER: _ClassVar[int]
    FAILS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    results: _containers.RepeatedCompositeFieldContainer[StepResult]
    failures: _containers.RepeatedCompositeFieldContainer[StepFailure]
    sleeps: _containers.RepeatedCompositeFieldContainer[Sleep]
    waits: _containers.RepeatedCompositeFieldContainer[WaitForEvent]
    invokes: _containers.RepeatedCompositeFieldContainer[Invoke]
    sends: _containers.RepeatedCompositeFieldContainer[SendEvents]
    delivered: _containers.RepeatedCompositeFieldContainer[Delivered]
    abandons: _containers.RepeatedCompositeFieldContainer[Abandon]
    parks: _containers.RepeatedCompositeFieldContainer[Park]
    releases: _containers.RepeatedCompositeFieldContainer[Release]
    mismatches: _containers.RepeatedCompositeFieldContainer[Mismatch]
    completes: _containers.RepeatedCompositeFieldContainer[Complete]
    fails: _containers.RepeatedCompositeFieldContainer[Fail]
    cancelled: _containers.RepeatedCompositeFieldContainer[Cancelled]
    def __init__(self, epoch: _Optional[int] = ..., results: _Optional[_Iterable[_Union[StepResult, _Mapping]]] = ..., failures: _Optional[_Iterable[_Union[StepFailure, _Mapping]]] = ..., sleeps: _Optional[_Iterable[_Union[Sleep, _Mapping]]] = ..., waits: _Optional[_Iterable[_Union[WaitForEvent, _Mapping]]] = ..., invokes: _Optional[_Iterable[_Union[Invoke, _Mapping]]] = ..., sends: _Optional[_Iterable[_Union[SendEvents, _Mapping]]] = ..., delivered: _Optional[_Iterable[_Union[Delivered, _Mapping]]] = ..., abandons: _Optional[_Iterable[_Union[Abandon, _Mapping]]] = ..., parks: _Optional[_Iterable[_Union[Park, _Mapping]]] = ..., releases: _Optional[_Iterable[_Union[Release, _Mapping]]] = ..., mismatches: _Optional[_Iterable[_Union[Mismatch, _Mapping]]] = ..., completes: _Optional[_Iterable[_Union[Complete, _Mapping]]] = ..., fails: _Optional[_Iterable[_Union[Fail, _Mapping]]] = ..., cancelled: _Optional[_Iterable[_Union[Cancelled, _Mapping]]] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("run_id", "turn", "key", "number", "output", "attempt", "started_ms", "ended_ms", "input_hash")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    INPUT_HASH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    number: int
    output: _common_pb2.Payload
    attempt: int
    started_ms: int
    ended_ms: int
    input_hash: bytes
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., number: _Optional[int] = ..., output: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., attempt: _Optional[int] = ..., started_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., input_hash: _Optional[bytes] = ...) -> None: ...

class StepFailure(_message.Message):
    __slots__ = ("run_id", "turn", "key", "attempt", "failure", "retry", "retry_after_ms", "started_ms", "ended_ms", "input_hash")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    INPUT_HASH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    attempt: int
    failure: _common_pb2.Failure
    retry: _common_pb2.RetryPolicy
    retry_after_ms: int
    started_ms: int
    ended_ms: int
    input_hash: bytes
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., attempt: _Optional[int] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., retry: _Optional[_Union[_common_pb2.RetryPolicy, _Mapping]] = ..., retry_after_ms: _Optional[int] = ..., started_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., input_hash: _Optional[bytes] = ...) -> None: ...

class Sleep(_message.Message):
    __slots__ = ("run_id", "turn", "key", "duration_ms", "until_ms")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    duration_ms: int
    until_ms: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., duration_ms: _Optional[int] = ..., until_ms: _Optional[int] = ...) -> None: ...

class WaitForEvent(_message.Message):
    __slots__ = ("run_id", "turn", "key", "event", "match_path", "match_value", "condition", "timeout_ms")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    MATCH_PATH_FIELD_NUMBER: _ClassVar[int]
    MATCH_VALUE_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    event: str
    match_path: str
    match_value: bytes
    condition: str
    timeout_ms: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., event: _Optional[str] = ..., match_path: _Optional[str] = ..., match_value: _Optional[bytes] = ..., condition: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class Invoke(_message.Message):
    __slots__ = ("run_id", "turn", "key", "function_id", "input", "timeout_ms", "detached", "input_hash", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    INPUT_HASH_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    function_id: str
    input: _common_pb2.Payload
    timeout_ms: int
    detached: bool
    input_hash: bytes
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., function_id: _Optional[str] = ..., input: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., timeout_ms: _Optional[int] = ..., detached: bool = ..., input_hash: _Optional[bytes] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SendEvents(_message.Message):
    __slots__ = ("run_id", "turn", "key", "events", "input_hash")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_HASH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.NewEvent]
    input_hash: bytes
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., events: _Optional[_Iterable[_Union[_event_pb2.NewEvent, _Mapping]]] = ..., input_hash: _Optional[bytes] = ...) -> None: ...

class Delivered(_message.Message):
    __slots__ = ("run_id", "turn", "keys")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    keys: _containers.RepeatedCompositeFieldContainer[DeliveredKey]
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., keys: _Optional[_Iterable[_Union[DeliveredKey, _Mapping]]] = ...) -> None: ...

class DeliveredKey(_message.Message):
    __slots__ = ("key", "number")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    key: str
    number: int
    def __init__(self, key: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class Abandon(_message.Message):
    __slots__ = ("run_id", "turn", "key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ...) -> None: ...

class AwaitTree(_message.Message):
    __slots__ = ("combine", "keys", "parts")
    class Combine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COMBINE_UNSPECIFIED: _ClassVar[AwaitTree.Combine]
        COMBINE_ANY: _ClassVar[AwaitTree.Combine]
        COMBINE_ALL: _ClassVar[AwaitTree.Combine]
    COMBINE_UNSPECIFIED: AwaitTree.Combine
    COMBINE_ANY: AwaitTree.Combine
    COMBINE_ALL: AwaitTree.Combine
    COMBINE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    combine: AwaitTree.Combine
    keys: _containers.RepeatedScalarFieldContainer[str]
    parts: _containers.RepeatedCompositeFieldContainer[AwaitTree]
    def __init__(self, combine: _Optional[_Union[AwaitTree.Combine, str]] = ..., keys: _Optional[_Iterable[str]] = ..., parts: _Optional[_Iterable[_Union[AwaitTree, _Mapping]]] = ...) -> None: ...

class Park(_message.Message):
    __slots__ = ("run_id", "turn", "tree", "received")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    tree: AwaitTree
    received: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., tree: _Optional[_Union[AwaitTree, _Mapping]] = ..., received: _Optional[int] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("run_id", "turn")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ...) -> None: ...

class Mismatch(_message.Message):
    __slots__ = ("run_id", "turn", "key", "recorded", "attempted", "location")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTED_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    recorded: str
    attempted: str
    location: str
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., recorded: _Optional[str] = ..., attempted: _Optional[str] = ..., location: _Optional[str] = ...) -> None: ...

class Complete(_message.Message):
    __slots__ = ("run_id", "turn", "number", "output")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    number: int
    output: _common_pb2.Payload
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., number: _Optional[int] = ..., output: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ...) -> None: ...

class Fail(_message.Message):
    __slots__ = ("run_id", "turn", "number", "failure", "attempt", "retry_after_ms")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    number: int
    failure: _common_pb2.Failure
    attempt: int
    retry_after_ms: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., number: _Optional[int] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., attempt: _Optional[int] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Cancelled(_message.Message):
    __slots__ = ("run_id", "turn", "number")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    number: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("capacity",)
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    capacity: int
    def __init__(self, capacity: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("epoch", "residents", "resident_hash", "frames_read")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESIDENTS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_HASH_FIELD_NUMBER: _ClassVar[int]
    FRAMES_READ_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    residents: int
    resident_hash: int
    frames_read: int
    def __init__(self, epoch: _Optional[int] = ..., residents: _Optional[int] = ..., resident_hash: _Optional[int] = ..., frames_read: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Work(_message.Message):
    __slots__ = ("acks", "assigns", "journal_parts", "outcomes", "cancels", "evicts", "refused")
    ACKS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNS_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_PARTS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    EVICTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    assigns: _containers.RepeatedCompositeFieldContainer[Assign]
    journal_parts: _containers.RepeatedCompositeFieldContainer[JournalPart]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    evicts: _containers.RepeatedCompositeFieldContainer[Evict]
    refused: _containers.RepeatedCompositeFieldContainer[Refused]
    def __init__(self, acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ..., assigns: _Optional[_Iterable[_Union[Assign, _Mapping]]] = ..., journal_parts: _Optional[_Iterable[_Union[JournalPart, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ..., evicts: _Optional[_Iterable[_Union[Evict, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[Refused, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("run_id", "turn", "number")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    number: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("run_id", "turn", "function_id", "event", "journal", "open", "more", "cancelled", "created_ms", "cancel_failure", "events")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FAILURE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    function_id: str
    event: _event_pb2.Event
    journal: _containers.RepeatedCompositeFieldContainer[Outcome]
    open: _containers.RepeatedCompositeFieldContainer[OpenKey]
    more: bool
    cancelled: bool
    created_ms: int
    cancel_failure: _common_pb2.Failure
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., function_id: _Optional[str] = ..., event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ..., journal: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., open: _Optional[_Iterable[_Union[OpenKey, _Mapping]]] = ..., more: bool = ..., cancelled: bool = ..., created_ms: _Optional[int] = ..., cancel_failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ...) -> None: ...

class JournalPart(_message.Message):
    __slots__ = ("run_id", "turn", "journal", "open", "more")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    journal: _containers.RepeatedCompositeFieldContainer[Outcome]
    open: _containers.RepeatedCompositeFieldContainer[OpenKey]
    more: bool
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., journal: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., open: _Optional[_Iterable[_Union[OpenKey, _Mapping]]] = ..., more: bool = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("run_id", "turn", "key", "number", "kind", "target", "output", "failure", "attempt", "time_ms", "input_hash")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    INPUT_HASH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    number: int
    kind: StepKind
    target: str
    output: _common_pb2.Payload
    failure: _common_pb2.Failure
    attempt: int
    time_ms: int
    input_hash: bytes
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., number: _Optional[int] = ..., kind: _Optional[_Union[StepKind, str]] = ..., target: _Optional[str] = ..., output: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., attempt: _Optional[int] = ..., time_ms: _Optional[int] = ..., input_hash: _Optional[bytes] = ...) -> None: ...

class OpenKey(_message.Message):
    __slots__ = ("key", "kind", "target", "input_hash")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    INPUT_HASH_FIELD_NUMBER: _ClassVar[int]
    key: str
    kind: StepKind
    target: str
    input_hash: bytes
    def __init__(self, key: _Optional[str] = ..., kind: _Optional[_Union[StepKind, str]] = ..., target: _Optional[str] = ..., input_hash: _Optional[bytes] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("run_id", "turn", "failure")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    failure: _common_pb2.Failure
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ...) -> None: ...

class Evict(_message.Message):
    __slots__ = ("run_id", "turn")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("run_id", "turn", "key", "reason", "message")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    turn: int
    key: str
    reason: str
    message: str
    def __init__(self, run_id: _Optional[str] = ..., turn: _Optional[int] = ..., key: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reconnect_after_ms", "reason")
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    reconnect_after_ms: int
    reason: str
    def __init__(self, reconnect_after_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
