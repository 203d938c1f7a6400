"""Error codes of the protocol as a table, and the exceptions that clients and commands raise.

Owns: one constant per protocol error, named and numbered as Apache Kafka's (Errors.java of
kafka-clients 4.3.1), with what a client may do about it and what the code says of one attempt to
store a batch. Codes travel as integers; brokers answer with them and never raise them.

Invariant: a code is NOT_STORED only where every path that answers it does so before the append.
Whether a record is stored at all is decided by the client, which joins all attempts into an
`Outcome`: NOT_STORED only if no attempt can be in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Attempt(Enum):
    """What one answer says about the attempt it answers, and about no earlier one."""

    STORED = "stored"
    NOT_STORED = "not stored"
    POSSIBLY_STORED = "possibly stored"


class Outcome(Enum):
    """What became of a record after all attempts to store it."""

    STORED = "stored"
    NOT_STORED = "not stored"
    POSSIBLY_STORED = "possibly stored"


@dataclass(frozen=True, slots=True)
class Code:
    """One protocol error: `number` on the wire, and how to treat it."""

    number: int
    name: str
    retriable: bool
    """The same bytes may be sent again and succeed."""
    refresh_metadata: bool
    """Whoever answered may no longer lead: ask for metadata before the next attempt."""
    attempt: Attempt
    text: str


BY_NUMBER: dict[int, Code] = {}

_RETRY = True
_REFRESH = True


def _code(
    number: int,
    name: str,
    text: str,
    retriable: bool = False,
    refresh_metadata: bool = False,
    *,
    attempt: Attempt = Attempt.NOT_STORED,
) -> Code:
    assert number not in BY_NUMBER, f"error {number} is listed twice"
    entry = Code(number, name, retriable, refresh_metadata, attempt, text)
    BY_NUMBER[number] = entry
    return entry


# The answer may come after the append, or says nothing about it.
_MAYBE = Attempt.POSSIBLY_STORED

UNKNOWN_SERVER_ERROR = _code(
    -1, "UNKNOWN_SERVER_ERROR", "the broker met an unexpected error", attempt=_MAYBE
)
NONE = _code(0, "NONE", "no error", attempt=Attempt.STORED)
OFFSET_OUT_OF_RANGE = _code(
    1, "OFFSET_OUT_OF_RANGE", "the offset lies before the log's start or past its end"
)
CORRUPT_MESSAGE = _code(
    2, "CORRUPT_MESSAGE", "the batch fails its checksum or is cut short", _RETRY
)
UNKNOWN_TOPIC_OR_PARTITION = _code(
    3, "UNKNOWN_TOPIC_OR_PARTITION", "no such topic or partition here", _RETRY, _REFRESH
)
LEADER_NOT_AVAILABLE = _code(
    5, "LEADER_NOT_AVAILABLE", "the partition has no leader at the moment", _RETRY, _REFRESH
)
NOT_LEADER_OR_FOLLOWER = _code(  # also answers requests that waited when leadership was lost
    6, "NOT_LEADER_OR_FOLLOWER", "this broker does not lead", _RETRY, _REFRESH, attempt=_MAYBE
)
REQUEST_TIMED_OUT = _code(
    7, "REQUEST_TIMED_OUT", "the replicas did not confirm in time", _RETRY, attempt=_MAYBE
)
REPLICA_NOT_AVAILABLE = _code(
    9, "REPLICA_NOT_AVAILABLE", "the replica is not available", _RETRY, _REFRESH
)
MESSAGE_TOO_LARGE = _code(
    10, "MESSAGE_TOO_LARGE", "the batch is larger than the topic's max.message.bytes"
)
NETWORK_EXCEPTION = _code(  # never on the wire: what a client notes for a broken connection
    13, "NETWORK_EXCEPTION", "the connection ended before the answer", _RETRY, _REFRESH,
    attempt=_MAYBE,
)  # fmt: skip
COORDINATOR_LOAD_IN_PROGRESS = _code(
    14, "COORDINATOR_LOAD_IN_PROGRESS", "the coordinator is still reading its state", _RETRY
)
COORDINATOR_NOT_AVAILABLE = _code(
    15, "COORDINATOR_NOT_AVAILABLE", "the coordinator is not available", _RETRY
)
NOT_COORDINATOR = _code(16, "NOT_COORDINATOR", "this broker is not the coordinator", _RETRY)
INVALID_TOPIC_EXCEPTION = _code(17, "INVALID_TOPIC_EXCEPTION", "the topic name is not allowed")
RECORD_LIST_TOO_LARGE = _code(
    18, "RECORD_LIST_TOO_LARGE", "the batch is larger than a segment may be"
)
NOT_ENOUGH_REPLICAS = _code(
    19, "NOT_ENOUGH_REPLICAS", "too few replicas are in sync; nothing was written", _RETRY
)
NOT_ENOUGH_REPLICAS_AFTER_APPEND = _code(
    20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "written, but to too few replicas", _RETRY,
    attempt=_MAYBE,
)  # fmt: skip
INVALID_REQUIRED_ACKS = _code(21, "INVALID_REQUIRED_ACKS", "acks must be 0, 1 or -1 (all)")
OFFSET_METADATA_TOO_LARGE = _code(
    12, "OFFSET_METADATA_TOO_LARGE", "the metadata of a committed offset is too long"
)
ILLEGAL_GENERATION = _code(22, "ILLEGAL_GENERATION", "the group is in another generation")
INCONSISTENT_GROUP_PROTOCOL = _code(
    23, "INCONSISTENT_GROUP_PROTOCOL", "the group is of another type, or shares no assignor"
)
INVALID_GROUP_ID = _code(24, "INVALID_GROUP_ID", "a group's name may not be empty")
UNKNOWN_MEMBER_ID = _code(25, "UNKNOWN_MEMBER_ID", "the group has no such member")
INVALID_SESSION_TIMEOUT = _code(
    26, "INVALID_SESSION_TIMEOUT", "the session time-out is outside the broker's bounds"
)
REBALANCE_IN_PROGRESS = _code(
    27, "REBALANCE_IN_PROGRESS", "the group forms a new generation: join again"
)
INVALID_COMMIT_OFFSET_SIZE = _code(
    28, "INVALID_COMMIT_OFFSET_SIZE", "the broker keeps no more committed offsets"
)
TOPIC_AUTHORIZATION_FAILED = _code(29, "TOPIC_AUTHORIZATION_FAILED", "not authorized for the topic")
CLUSTER_AUTHORIZATION_FAILED = _code(
    31, "CLUSTER_AUTHORIZATION_FAILED", "not authorized for the cluster"
)
INVALID_TIMESTAMP = _code(
    32, "INVALID_TIMESTAMP", "a record's timestamp is out of the allowed range"
)
UNSUPPORTED_VERSION = _code(35, "UNSUPPORTED_VERSION", "this version of the API is not served")
TOPIC_ALREADY_EXISTS = _code(36, "TOPIC_ALREADY_EXISTS", "the topic exists already")
INVALID_PARTITIONS = _code(37, "INVALID_PARTITIONS", "the number of partitions is not allowed")
INVALID_REPLICATION_FACTOR = _code(
    38, "INVALID_REPLICATION_FACTOR", "fewer than one replica, or more than there are brokers"
)
INVALID_REPLICA_ASSIGNMENT = _code(
    39, "INVALID_REPLICA_ASSIGNMENT", "the replica assignment is not valid"
)
INVALID_CONFIG = _code(40, "INVALID_CONFIG", "a configuration key or value is not allowed")
# Kafka leaves the refresh to its admin client; metadata is where any client finds the controller.
NOT_CONTROLLER = _code(41, "NOT_CONTROLLER", "this broker is not the controller", _RETRY, _REFRESH)
INVALID_REQUEST = _code(42, "INVALID_REQUEST", "the request contradicts itself")
POLICY_VIOLATION = _code(44, "POLICY_VIOLATION", "the request breaks a policy")
OUT_OF_ORDER_SEQUENCE_NUMBER = _code(
    45, "OUT_OF_ORDER_SEQUENCE_NUMBER", "the batch does not follow the producer's last one"
)
DUPLICATE_SEQUENCE_NUMBER = _code(
    46, "DUPLICATE_SEQUENCE_NUMBER", "the batch was stored before", attempt=Attempt.STORED
)
INVALID_PRODUCER_EPOCH = _code(
    47, "INVALID_PRODUCER_EPOCH", "a newer instance of this producer has taken over"
)
INVALID_TXN_STATE = _code(48, "INVALID_TXN_STATE", "the transaction is in another state")
INVALID_PRODUCER_ID_MAPPING = _code(
    49, "INVALID_PRODUCER_ID_MAPPING", "the producer id does not belong to this transactional id"
)
INVALID_TRANSACTION_TIMEOUT = _code(
    50, "INVALID_TRANSACTION_TIMEOUT", "the transaction time-out is larger than allowed"
)
CONCURRENT_TRANSACTIONS = _code(
    51, "CONCURRENT_TRANSACTIONS", "the previous transaction is still being completed", _RETRY
)
TRANSACTION_COORDINATOR_FENCED = _code(
    52, "TRANSACTION_COORDINATOR_FENCED", "another transaction coordinator has taken over"
)
TRANSACTIONAL_ID_AUTHORIZATION_FAILED = _code(
    53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "not authorized for the transactional id"
)
OPERATION_NOT_ATTEMPTED = _code(55, "OPERATION_NOT_ATTEMPTED", "the broker did not try")
KAFKA_STORAGE_ERROR = _code(
    56, "KAFKA_STORAGE_ERROR", "the disk failed or is full", _RETRY, _REFRESH, attempt=_MAYBE
)
UNKNOWN_PRODUCER_ID = _code(
    59, "UNKNOWN_PRODUCER_ID", "the broker knows nothing of this producer id"
)
NON_EMPTY_GROUP = _code(68, "NON_EMPTY_GROUP", "the group has members")
GROUP_ID_NOT_FOUND = _code(69, "GROUP_ID_NOT_FOUND", "no such group")
FETCH_SESSION_ID_NOT_FOUND = _code(
    70, "FETCH_SESSION_ID_NOT_FOUND", "the fetch session is not known", _RETRY
)
INVALID_FETCH_SESSION_EPOCH = _code(
    71, "INVALID_FETCH_SESSION_EPOCH", "the fetch session epoch is not the next one", _RETRY
)
FENCED_LEADER_EPOCH = _code(
    74, "FENCED_LEADER_EPOCH", "the request names an older leader epoch", _RETRY, _REFRESH
)
UNKNOWN_LEADER_EPOCH = _code(
    75, "UNKNOWN_LEADER_EPOCH", "the request names a newer leader epoch", _RETRY
)
UNSUPPORTED_COMPRESSION_TYPE = _code(
    76, "UNSUPPORTED_COMPRESSION_TYPE", "this API version cannot carry the batch's compression"
)
STALE_BROKER_EPOCH = _code(77, "STALE_BROKER_EPOCH", "the broker has registered again since")
OFFSET_NOT_AVAILABLE = _code(
    78, "OFFSET_NOT_AVAILABLE", "a new leader does not know the committed end yet", _RETRY
)
MEMBER_ID_REQUIRED = _code(
    79, "MEMBER_ID_REQUIRED", "a new member joins again with the id it was given"
)
GROUP_MAX_SIZE_REACHED = _code(
    81, "GROUP_MAX_SIZE_REACHED", "the group has as many members as it may"
)
FENCED_INSTANCE_ID = _code(
    82, "FENCED_INSTANCE_ID", "another member has taken over this instance id"
)
ELIGIBLE_LEADERS_NOT_AVAILABLE = _code(
    83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", "no replica may lead at the moment", _RETRY, _REFRESH
)
ELECTION_NOT_NEEDED = _code(84, "ELECTION_NOT_NEEDED", "the leader stays", _RETRY, _REFRESH)
GROUP_SUBSCRIBED_TO_TOPIC = _code(
    86, "GROUP_SUBSCRIBED_TO_TOPIC", "a member of the group reads this topic"
)
INVALID_RECORD = _code(87, "INVALID_RECORD", "the batch breaks a rule of its format")
THROTTLING_QUOTA_EXCEEDED = _code(89, "THROTTLING_QUOTA_EXCEEDED", "the quota is used up", _RETRY)
PRODUCER_FENCED = _code(90, "PRODUCER_FENCED", "a newer producer uses this transactional id")
INVALID_UPDATE_VERSION = _code(
    95, "INVALID_UPDATE_VERSION", "the update is based on an older version"
)
UNKNOWN_TOPIC_ID = _code(100, "UNKNOWN_TOPIC_ID", "no topic has this id", _RETRY, _REFRESH)
DUPLICATE_BROKER_REGISTRATION = _code(
    101, "DUPLICATE_BROKER_REGISTRATION", "another broker uses this id"
)
BROKER_ID_NOT_REGISTERED = _code(102, "BROKER_ID_NOT_REGISTERED", "no broker has this id")
INCONSISTENT_TOPIC_ID = _code(
    103, "INCONSISTENT_TOPIC_ID", "the log belongs to another topic id", _RETRY, _REFRESH
)
INCONSISTENT_CLUSTER_ID = _code(104, "INCONSISTENT_CLUSTER_ID", "this is another cluster")
FETCH_SESSION_TOPIC_ID_ERROR = _code(
    106, "FETCH_SESSION_TOPIC_ID_ERROR", "the fetch session mixes topic ids and names", _RETRY
)
INELIGIBLE_REPLICA = _code(107, "INELIGIBLE_REPLICA", "a replica may not join the in-sync set")
NEW_LEADER_ELECTED = _code(108, "NEW_LEADER_ELECTED", "the change was made; the leader is new")
MISMATCHED_ENDPOINT_TYPE = _code(
    114, "MISMATCHED_ENDPOINT_TYPE", "brokers are asked here, not controllers"
)
UNSUPPORTED_ENDPOINT_TYPE = _code(115, "UNSUPPORTED_ENDPOINT_TYPE", "no such type of endpoint")
TRANSACTION_ABORTABLE = _code(
    120, "TRANSACTION_ABORTABLE", "the transaction must be aborted; the producer may go on"
)


def code(number: int) -> Code:
    """The entry of `number`; a number nobody listed is final and says nothing of the attempt."""
    known = BY_NUMBER.get(number)
    if known is not None:
        return known
    return Code(number, f"ERROR_{number}", False, False, _MAYBE, "an error this client cannot name")


class OncelogError(Exception):
    """Base of every error that the client and the commands raise on purpose."""


class ConfigError(OncelogError):
    """A configuration file has a wrong key or value: `allowed` says what would be right."""

    def __init__(self, file: str, key: str, allowed: str) -> None:
        super().__init__(f"{file}: {key}: expected {allowed}")
        self.file = file
        self.key = key
        self.allowed = allowed


class ProduceError(OncelogError):
    """A record was not acknowledged; `outcome` says whether it can be in the log all the same."""

    def __init__(self, code: Code, outcome: Outcome, detail: str = "") -> None:
        text = f"{code.name}: {detail or code.text} (the record is {outcome.value})"
        super().__init__(text)
        self.code = code
        self.outcome = outcome


class RequestError(OncelogError):
    """A broker answered a request that stores nothing with an error."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code.name}: {detail or code.text}")
        self.code = code


class BrokerUnavailable(OncelogError):
    """No broker could be reached, or the one needed did not answer in time."""
