"""Who in a group reads what: the range assignor, as Kafka's clients know it.

Owns one pure function. Topic by topic, the members that read it are put in order, static ones by
their instance id and before the others, and each gets a run of its partitions; the first ones get
one more where it does not come out even. Members of other clients that speak "range" come to the
same result, so whoever leads may be any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RANGE = "range"


@dataclass(frozen=True, slots=True)
class Reader:
    """One member and the topics that it reads."""

    member_id: str
    instance_id: str | None
    topics: Sequence[str]


def assign_ranges(
    readers: Sequence[Reader], partitions: Mapping[str, int]
) -> dict[str, dict[str, list[int]]]:
    """Partitions by topic, for every member; `partitions` counts those of each topic there is."""
    given: dict[str, dict[str, list[int]]] = {reader.member_id: {} for reader in readers}
    ordered = sorted(readers, key=_order)
    for topic, count in sorted(partitions.items()):
        members = [reader.member_id for reader in ordered if topic in reader.topics]
        for number, member_id in enumerate(members):
            share, more = divmod(count, len(members))
            first = number * share + min(number, more)
            mine = list(range(first, first + share + (number < more)))
            if mine:
                given[member_id][topic] = mine
    return given


def _order(reader: Reader) -> tuple[bool, str]:
    return (reader.instance_id is None, reader.instance_id or reader.member_id)
