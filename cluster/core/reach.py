"""How far a replica reaches, as it says when a leader is chosen (rule 7).

Owns: nothing; the report is a function of the log.
"""

from __future__ import annotations

from cluster.core.replica import Replica
from cluster.core.replicate import epoch_at
from cluster.wire.stream import ReplicaState


def reach(replica: Replica, taken_up: int) -> ReplicaState:
    """The report of a replica that has taken up this leader epoch.

    It names the epoch of the last record, not the last one assigned: an epoch without a record
    says nothing of how far a log reaches. A damaged replica says how far it once reached, for
    nobody who has less may lead.
    """
    log, damage = replica.log, replica.log.damage
    end, epoch = replica.counted_end, epoch_at(log.epochs, replica.counted_end - 1)
    if damage is not None:
        end, epoch = damage.claimed_end, damage.claimed_epoch
    return ReplicaState(
        replica.topic_id,
        replica.index,
        taken_up,
        epoch,
        end,
        doubtful=log.doubtful or damage is not None,
        damaged=damage is not None,
    )


def none(topic_id: bytes, index: int) -> ReplicaState:
    """The report of a replica that cannot serve."""
    return ReplicaState(topic_id, index, -1, -1, -1, doubtful=False)
