"""Keys go where Kafka's clients send them; records without one take turns."""

import pytest

from cluster.client.partitioner import Sticky, murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_hash_as_in_kafkas_own_tests(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert partition_of(key, 7) == (signed & 0x7FFFFFFF) % 7


def test_a_sticky_choice_changes_after_its_turn_of_bytes_and_comes_round() -> None:
    sticky = Sticky(5, 100)
    assert [sticky.choose(60, 3) for _ in range(8)] == [2, 2, 0, 0, 1, 1, 2, 2]
