"""What a subscribed consumer does between two polls: give up, join, take over, commit.

Owns the order of these steps. A rebalance happens inside `poll` and nowhere else: whoever calls
`poll` again has dealt with what the last one returned, so that what is committed when partitions
are given up is what was worked on. Heartbeats go on meanwhile.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from cluster.client.membership import Membership
from cluster.client.offsets import BEGIN, END, TopicPartition, at, list_offsets
from cluster.client.session import Session
from cluster.errors import OFFSET_OUT_OF_RANGE, BrokerUnavailable, RequestError

Listener = Callable[[Sequence[TopicPartition]], Awaitable[None] | None]
"""Told of partitions; may be a coroutine function."""
Positions = Callable[
    [Sequence[TopicPartition]],
    Mapping[TopicPartition, int] | Awaitable[Mapping[TopicPartition, int]],
]
"""Where to begin in these partitions, as kept elsewhere than in the group; those it does not know
it leaves out."""
Reset = Literal["earliest", "latest", "error"]


class Reading(Protocol):
    """The consumer, as far as its subscription moves it."""

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """Where the next poll begins, by partition."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these from now on."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a consumer does about its offsets and whom it tells."""

    reset: Reset = "earliest"
    auto_commit_ms: int | None = 5_000
    positions: Positions | None = None
    on_assigned: Listener | None = None
    on_revoked: Listener | None = None


class SubscribedConsumer:
    """One consumer's subscription."""

    def __init__(
        self, session: Session, reading: Reading, membership: Membership, policy: Policy
    ) -> None:
        self.membership = membership
        self._session = session
        self._reading = reading
        self._policy = policy
        self._joining: asyncio.Task[dict[TopicPartition, int]] | None = None
        self._joined = False
        self._commit_due = session.now() + (policy.auto_commit_ms or 0) / 1000
        self._committed: dict[TopicPartition, int] = {}

    async def advance(self, deadline: float) -> None:
        """Do what is due before the next records; at most until `deadline` (loop seconds)."""
        membership = self.membership
        if membership.failure is not None:
            raise membership.failure
        if membership.must_join and self._joining is None:
            await self._give_up()
            self._joining = asyncio.get_running_loop().create_task(self._join())
        if self._joining is not None:
            await self._take_over(deadline)
        if self._policy.auto_commit_ms is not None and self._session.now() >= self._commit_due:
            self._commit_due = self._session.now() + self._policy.auto_commit_ms / 1000
            with suppress(RequestError, BrokerUnavailable):  # the next one says it all again
                await self.commit(None)

    async def _give_up(self) -> None:
        """Nothing is read any more; what was worked on is committed if that is possible."""
        if not self._joined:
            return
        self._joined = False
        given_up = list(self._reading.positions)
        if self._policy.auto_commit_ms is not None:
            with suppress(RequestError, BrokerUnavailable):
                await self.commit(None)
        await _tell(self._policy.on_revoked, given_up)
        self._reading.assign({})

    async def _join(self) -> dict[TopicPartition, int]:
        return await self._begin(await self.membership.join())

    async def _begin(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to begin: what is kept elsewhere, or committed, or as the policy says."""
        if not partitions:
            return {}
        if self._policy.positions is not None:
            found = self._policy.positions(partitions)
            known = dict(await found if inspect.isawaitable(found) else found)
        else:
            known = await self.membership.committed(partitions)
            self._committed = dict(known)
        missing = [where for where in partitions if where not in known]
        if missing and self._policy.reset == "error":
            raise RequestError(OFFSET_OUT_OF_RANGE, f"nothing is committed for {missing}")
        if missing:
            timestamp = BEGIN if self._policy.reset == "earliest" else END
            known |= await list_offsets(self._session, at(missing, timestamp))
        return {where: known[where] for where in partitions}

    async def _take_over(self, deadline: float) -> None:
        task = self._joining
        assert task is not None
        await asyncio.wait({task}, timeout=max(0.0, deadline - self._session.now()))
        if not task.done():
            return
        self._joining = None
        try:
            positions = task.result()
        except BaseException:
            self.membership.must_join = True
            raise
        self._joined = True
        self._reading.assign(positions)
        await _tell(self._policy.on_assigned, list(positions))

    async def commit(self, offsets: Mapping[TopicPartition, int] | None) -> None:
        """Commit these, or with None every position that has moved since it was committed."""
        wanted = self._reading.positions if offsets is None else dict(offsets)
        if offsets is None:
            wanted = {k: v for k, v in wanted.items() if self._committed.get(k) != v}
        if wanted:
            await self.membership.commit(wanted)
            self._committed |= wanted

    async def close(self) -> None:
        """Commit what was worked on, and go."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.gather(self._joining, return_exceptions=True)
            self._joining = None
        await self._give_up()
        await self.membership.leave()


async def _tell(listener: Listener | None, partitions: Sequence[TopicPartition]) -> None:
    if listener is not None:
        told = listener(partitions)
        if inspect.isawaitable(told):
            await told
