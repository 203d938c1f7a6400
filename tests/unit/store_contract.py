"""What every metadata store must do, whatever it stands on.

A store's test module subclasses `StoreContract` and gives the fixture `open_store`: a function that
opens one more connection to the same, initially empty store, and closes all of them at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from cluster.control.store import (
    Change,
    Committed,
    Condition,
    Conflict,
    Delete,
    MetadataStore,
    Put,
    StoreError,
)
from cluster.limits import STORE_KEY_LENGTH_MAX, STORE_LEASE_LAG_MS, STORE_VALUE_BYTES_MAX

OpenStore = Callable[[], Awaitable[MetadataStore]]
TTL_MS = 200
SCHEDULING_MS = 500  # tests share their processors: what a busy machine may add


class Follower:
    """A watcher that keeps the state it was told, and all changes in order."""

    def __init__(self, store: MetadataStore) -> None:
        self.state: dict[str, bytes] = {}
        self.changes: list[Change] = []
        self.calls = 0
        self._moved = asyncio.Event()
        self.stop = store.watch(self._on_changes)

    def _on_changes(self, changes: Sequence[Change]) -> None:
        self.calls += 1
        self.changes.extend(changes)
        for change in changes:
            if change.value is None:
                self.state.pop(change.key, None)
            else:
                self.state[change.key] = change.value
        self._moved.set()

    async def until(self, reached: Callable[[dict[str, bytes]], bool]) -> None:
        async with asyncio.timeout(5):
            while not reached(self.state):
                self._moved.clear()
                await self._moved.wait()


async def put(store: MetadataStore, key: str, value: bytes = b"x") -> int:
    outcome = await store.transact([], [Put(key, value)])
    assert isinstance(outcome, Committed)
    return outcome.revision


async def add_one(store: MetadataStore, key: str) -> None:
    """Increase a number by compare-and-set until it is done."""
    while True:
        await store.refresh()
        stored = await store.get(key)
        number, version = (int(stored.value), stored.version) if stored else (0, 0)
        writes = [Put(key, str(number + 1).encode())]
        if isinstance(await store.transact([Condition(key, version)], writes), Committed):
            return


class StoreContract:
    async def test_absent_key_has_version_zero(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert await store.get("a") is None
        first = await store.transact([Condition("a", 0)], [Put("a", b"1")])
        assert isinstance(first, Committed)
        assert await store.transact([Condition("a", 0)], [Put("a", b"2")]) == Conflict("a")
        stored = await store.get("a")
        assert stored is not None
        assert (stored.value, stored.version) == (b"1", first.revision)

    async def test_all_conditions_hold_or_nothing_is_written(self, open_store: OpenStore) -> None:
        store = await open_store()
        version = await put(store, "a")
        conditions = [Condition("a", version), Condition("b", 7)]
        outcome = await store.transact(conditions, [Delete("a"), Put("c", b"2")])
        assert outcome == Conflict("b")
        assert [stored.key for stored in await store.list("")] == ["a"]

    async def test_writes_of_a_transaction_share_one_revision(self, open_store: OpenStore) -> None:
        store = await open_store()
        await put(store, "gone")
        outcome = await store.transact([], [Put("a", b"1"), Put("b", b"2"), Delete("gone")])
        assert isinstance(outcome, Committed)
        assert {stored.version for stored in await store.list("")} == {outcome.revision}

    async def test_a_key_deleted_and_put_again_has_a_new_version(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        version = await put(store, "a")
        await store.transact([Condition("a", version)], [Delete("a")])
        assert await store.get("a") is None
        again = await store.transact([Condition("a", 0)], [Put("a", b"x")])
        assert isinstance(again, Committed)
        assert again.revision > version
        assert await store.transact([Condition("a", version)], []) == Conflict("a")

    async def test_deleting_an_absent_key_changes_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        revision = await put(store, "a")
        assert await store.transact([], [Delete("b")]) == Committed(revision)

    async def test_list_gives_the_prefix_in_key_order(self, open_store: OpenStore) -> None:
        store = await open_store()
        for key in ("b/2", "a/1", "b/1", "c"):
            await put(store, key)
        assert [stored.key for stored in await store.list("b/")] == ["b/1", "b/2"]
        assert [stored.key for stored in await store.list("")] == ["a/1", "b/1", "b/2", "c"]

    async def test_a_key_written_twice_in_a_transaction_is_refused(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        with pytest.raises(ValueError, match="only once"):
            await store.transact([], [Put("a", b"1"), Delete("a")])

    async def test_keys_and_values_are_bounded(self, open_store: OpenStore) -> None:
        store = await open_store()
        for write in (
            Put("", b""),
            Put("k" * (STORE_KEY_LENGTH_MAX + 1), b""),
            Put("k", bytes(STORE_VALUE_BYTES_MAX + 1)),
        ):
            with pytest.raises(ValueError, match=r"a (key|value) of"):
                await store.transact([], [write])

    async def test_concurrent_increments_are_all_counted(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        await asyncio.gather(*[add_one(store, "n") for store in stores for _ in range(8)])
        await stores[0].refresh()
        stored = await stores[0].get("n")
        assert stored is not None
        assert stored.value == b"24"

    async def test_exactly_one_of_many_claims_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        claims = [
            store.transact([Condition("lock", 0)], [Put("lock", b"%d" % n)])
            for n, store in enumerate(stores * 4)
        ]
        outcomes = await asyncio.gather(*claims)
        assert sum(isinstance(outcome, Committed) for outcome in outcomes) == 1

    async def test_refresh_shows_what_another_connection_wrote(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        revision = await put(one, "a", b"1")
        assert await two.refresh() >= revision
        stored = await two.get("a")
        assert stored is not None
        assert stored.version == revision

    async def test_watch_starts_with_the_full_state(self, open_store: OpenStore) -> None:
        store = await open_store()
        await put(store, "b", b"1")
        await put(store, "a", b"2")
        follower = Follower(store)
        assert follower.state == {"a": b"2", "b": b"1"}
        assert [change.key for change in follower.changes] == ["b", "a"]

    async def test_watch_of_an_empty_store_is_called_at_once(self, open_store: OpenStore) -> None:
        follower = Follower(await open_store())
        assert (follower.calls, follower.changes) == (1, [])

    async def test_changes_come_in_order_of_revision_everywhere(
        self, open_store: OpenStore
    ) -> None:
        stores = [await open_store() for _ in range(3)]
        followers = [Follower(store) for store in stores]
        await asyncio.gather(
            *[put(store, f"k{n % 4}", b"%d" % n) for n in range(30) for store in stores]
        )
        await put(stores[0], "last")
        await stores[1].transact([], [Delete("k0")])
        for follower in followers:
            await follower.until(lambda state: "last" in state and "k0" not in state)
            versions = [change.version for change in follower.changes]
            assert versions == sorted(versions)
        assert followers[0].state == followers[1].state == followers[2].state

    async def test_a_transaction_reaches_a_watcher_whole(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        seen: list[set[str]] = []
        two.watch(lambda changes: seen.append({change.key for change in changes}))
        await one.transact([], [Put(key, b"x") for key in "abc"])
        await two.refresh()
        assert seen == [set(), {"a", "b", "c"}]

    async def test_a_change_is_seen_before_its_own_transaction_is_answered(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        follower = Follower(store)
        await put(store, "a", b"1")
        assert follower.state == {"a": b"1"}

    async def test_a_conflict_leaves_the_copy_new_enough_to_try_again(
        self, open_store: OpenStore
    ) -> None:
        one, two = await open_store(), await open_store()
        version = await put(one, "a")
        assert await two.transact([Condition("a", 0)], [Put("a", b"y")]) == Conflict("a")
        stored = await two.get("a")
        assert stored is not None
        assert stored.version == version

    async def test_changes_of_others_are_seen_without_asking(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        follower = Follower(two)
        await put(one, "a")
        await follower.until(lambda state: "a" in state)
        await put(one, "b")
        two.poke()
        await follower.until(lambda state: "b" in state)

    async def test_a_stopped_watch_is_not_called(self, open_store: OpenStore) -> None:
        store = await open_store()
        follower = Follower(store)
        follower.stop()
        await put(store, "a")
        assert follower.calls == 1

    async def test_keys_of_a_lease_vanish_everywhere_when_it_ends(
        self, open_store: OpenStore
    ) -> None:
        one, two = await open_store(), await open_store()
        follower = Follower(two)
        now = asyncio.get_running_loop().time
        asked_at = now()
        lease = await one.grant(TTL_MS)
        granted_at = now()
        await one.transact([], [Put("leased", b"1", lease), Put("kept", b"1")])
        await follower.until(lambda state: "kept" in state and "leased" not in state)
        assert any(change.value == b"1" for change in follower.changes if change.key == "leased")
        assert (now() - asked_at) * 1000 >= TTL_MS - 2
        assert (now() - granted_at) * 1000 <= TTL_MS + STORE_LEASE_LAG_MS + SCHEDULING_MS
        assert "kept" in follower.state
        assert not await one.keep_alive(lease)

    async def test_a_lease_kept_alive_outlives_its_first_term(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        lease, witness = await one.grant(2 * TTL_MS), await two.grant(3 * TTL_MS)
        await one.transact([], [Put("a", b"1", lease)])
        await two.transact([], [Put("witness", b"1", witness)])
        follower = Follower(two)
        while "witness" in follower.state:
            assert await one.keep_alive(lease)
            await asyncio.sleep(TTL_MS / 5000)
        assert "a" in follower.state

    async def test_revoking_deletes_the_keys_at_once(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        lease = await one.grant(60_000)
        await one.transact([], [Put("a", b"1", lease), Put("b", b"1", lease)])
        await one.revoke(lease)
        await two.refresh()
        assert await two.list("") == []
        assert not await one.keep_alive(lease)

    async def test_a_put_under_an_ended_lease_is_a_conflict(self, open_store: OpenStore) -> None:
        store = await open_store()
        lease = await store.grant(60_000)
        await store.revoke(lease)
        writes = [Put("a", b"1"), Put("b", b"1", lease)]
        assert await store.transact([], writes) == Conflict("b")
        assert await store.list("") == []

    async def test_a_put_without_lease_takes_the_key_out_of_it(self, open_store: OpenStore) -> None:
        store = await open_store()
        lease = await store.grant(60_000)
        await store.transact([], [Put("a", b"1", lease)])
        await put(store, "a", b"2")
        await store.revoke(lease)
        assert [stored.value for stored in await store.list("")] == [b"2"]

    async def test_a_lease_has_bounds(self, open_store: OpenStore) -> None:
        store = await open_store()
        for ttl_ms in (0, 10**9):
            with pytest.raises(ValueError, match="lease"):
                await store.grant(ttl_ms)

    async def test_state_and_revision_survive_a_restart(self, open_store: OpenStore) -> None:
        store = await open_store()
        await put(store, "a", b"1")
        await put(store, "b", b"1")
        revision = await put(store, "a", b"2")
        await store.close()
        again = await open_store()
        assert [(s.key, s.value) for s in await again.list("")] == [("a", b"2"), ("b", b"1")]
        assert await put(again, "c") > revision

    async def test_a_closed_store_refuses_calls(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.close()
        await store.close()
        store.poke()
        with pytest.raises(StoreError, match="closed"):
            await store.transact([], [Put("a", b"1")])
