"""CRC-32C: the check value, continuation, and the processor against the portable version."""

import random

import pytest

from _fastseq.crc32c import crc32c, crc32c_portable


def test_check_value_of_castagnoli_is_right() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c_portable(b"123456789") == 0xE3069283


def test_nothing_has_checksum_zero() -> None:
    assert crc32c(b"") == 0


@pytest.mark.parametrize(
    "length", [1, 7, 8, 9, 255, 256, 767, 768, 769, 3 * 8192 - 1, 3 * 8192, 3 * 8192 + 777, 99_999]
)
def test_instruction_and_tables_agree_at_every_block_border(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert crc32c(data) == crc32c_portable(data)


def test_checksum_goes_on_where_the_last_call_ended() -> None:
    data = random.Random(1).randbytes(5000)
    for cut in (0, 1, 800, 4999, 5000):
        assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)
        assert crc32c_portable(data[cut:], crc32c_portable(data[:cut])) == crc32c(data)


def test_any_contiguous_buffer_is_accepted() -> None:
    data = b"0123456789abcdef"
    assert crc32c(bytearray(data)) == crc32c(memoryview(data).cast("I")) == crc32c(data)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="data"):
        crc32c("text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data"):
        crc32c(memoryview(b"0123")[::2])
    with pytest.raises(TypeError, match="value"):
        crc32c(b"", "0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="value"):
        crc32c(b"", -1)
