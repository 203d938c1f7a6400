from typing_extensions import disjoint_base

from _fastseq.workers import Workers

@disjoint_base
class SyncWorkers(Workers):
    def submit(self, fd: int, token: int, generation: int, end: int) -> None: ...
    def drain(self) -> list[tuple[int, int, int, int, int]]: ...
