"""Which topics a group reads, as far as its members' metadata says so.

Owns nothing: it looks into what a coordinator otherwise carries unread.
"""

from __future__ import annotations

from cluster.core.group import Group
from cluster.wire.assignments import PROTOCOL_TYPE, decode_topics
from cluster.wire.primitives import WireError


def topics_read(group: Group) -> set[str] | None:
    """The topics that members subscribe to; None if the group is not one of consumers, or a
    member says it in a way that nobody can read."""
    if group.protocol_type != PROTOCOL_TYPE:
        return None
    topics: set[str] = set()
    for member in group.members:
        for _, metadata in member.protocols:
            try:
                topics.update(decode_topics(metadata))
            except WireError:
                return None
    return topics
