from typing_extensions import Buffer

from _fastseq.workers import Workers

class ReadWorkers(Workers):
    def submit(self, fd: int, token: int, position: int, buffer: Buffer) -> None: ...
    def drain(self) -> list[tuple[int, int, int, int]]: ...
