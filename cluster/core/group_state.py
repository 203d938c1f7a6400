"""What a group is made of beside its members: states, settings, and its form in the log.

Owns the translation between a group and the record that stores it. A record without a leader
though it has members is of a generation whose assignments were not stored yet: a coordinator that
finds it lets everybody join again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cluster.core.members import Member, Members
from cluster.wire.group_records import GroupValue, MemberValue


class State(Enum):
    """Where a group stands, by Kafka's names."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """What an operator may set; Kafka's names and defaults, times in milliseconds."""

    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    initial_rebalance_delay_ms: int = 3_000
    max_size: int = 1_000
    offset_metadata_max_bytes: int = 4_096
    offsets_retention_ms: int = 7 * 24 * 3_600_000
    topic_partitions: int = 8
    topic_replicas: int = 3


def stored_members(members: Members, protocol: str | None) -> list[MemberValue]:
    """Every member with its assignment, as the log keeps it."""
    return [
        MemberValue(
            member_id=member.member_id,
            group_instance_id=member.instance_id,
            client_id=member.client_id,
            client_host=member.host,
            rebalance_timeout=member.rebalance_timeout_ms,
            session_timeout=member.session_timeout_ms,
            subscription=member.metadata(protocol),
            assignment=member.assignment,
        )
        for member in members
    ]


def restored_members(value: GroupValue, now_ms: int) -> Members:
    """The members that the log names; each has a whole session to be heard of."""
    members = Members()
    for stored in value.members:
        members.add(
            Member(
                stored.member_id, stored.group_instance_id, stored.client_id,
                stored.client_host, stored.session_timeout, stored.rebalance_timeout,
                ((value.protocol or "", stored.subscription),),
                stored.assignment, now_ms + stored.session_timeout,
            )
        )  # fmt: skip
    if value.leader in members.by_id:
        members.leader = value.leader
    return members
