from typing_extensions import Buffer

from _fastseq.table import ProducerTable

def decide_nanoseconds(
    table: ProducerTable, producers: int, turn: int, turns: int, *, retries: bool = False
) -> tuple[int, int]: ...
def check_nanoseconds(data: Buffer, rounds: int) -> int: ...
