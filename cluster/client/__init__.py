"""The asyncio client: `Producer`, `Consumer` and `Admin`, each an async context manager."""

from _fastseq.batch import Record
from cluster.client.admin import Admin, ClusterDescription, TopicDescription
from cluster.client.consumer import Consumer, Fetched
from cluster.client.delivery import BatchDelivery, BufferFull, Delivery, PartlyProduced, Verdict
from cluster.client.exactly_once import OffsetsMoved, SqlOffsets
from cluster.client.membership import GroupOptions
from cluster.client.metadata import PartitionInfo
from cluster.client.offsets import TopicPartition
from cluster.client.producer import Producer, ProducerStats
from cluster.client.producer_info import BatchInfo, FloorInfo, ProducerInfo, ProducersInfo
from cluster.client.subscription import Policy
from cluster.errors import (
    BrokerUnavailable,
    OncelogError,
    Outcome,
    ProduceError,
    RequestError,
)

__all__ = [
    "Admin",
    "BatchDelivery",
    "BatchInfo",
    "BrokerUnavailable",
    "BufferFull",
    "ClusterDescription",
    "Consumer",
    "Delivery",
    "Fetched",
    "FloorInfo",
    "GroupOptions",
    "OffsetsMoved",
    "OncelogError",
    "Outcome",
    "PartitionInfo",
    "PartlyProduced",
    "Policy",
    "ProduceError",
    "Producer",
    "ProducerInfo",
    "ProducerStats",
    "ProducersInfo",
    "Record",
    "RequestError",
    "SqlOffsets",
    "TopicDescription",
    "TopicPartition",
    "Verdict",
]
