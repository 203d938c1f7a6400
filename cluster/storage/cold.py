"""Reads of one log that wait for the device: which files they hold open.

Owns the pins of the files that read workers were given, until each read came back. A worker holds
the bare number, so a file that is deleted meanwhile stays open for it.
"""

from __future__ import annotations

from cluster.storage.pinned import PinnedFile
from cluster.storage.reading import Cold, Missing
from cluster.storage.segment import Segment


class ColdReads:
    """The reads of one log that are under way."""

    def __init__(self) -> None:
        self._files: dict[int, PinnedFile] = {}
        self._number = 0

    def __len__(self) -> int:
        """How many have not come back."""
        return len(self._files)

    def ask(self, segment: Segment, missing: Missing, generation: int) -> Cold:
        """What a read worker must be given; it must come back through `returned`."""
        file = segment.reader.index_file if missing.index else segment.file
        file.pin()
        self._number += 1
        self._files[self._number] = file
        return Cold(
            file.open(),
            missing.position,
            missing.length,
            number=self._number,
            segment_base=segment.base_offset,
            generation=generation,
            missing=missing,
        )

    def returned(self, cold: Cold) -> None:
        """A read came back, whatever its result."""
        file = self._files.pop(cold.number)
        file.unpin()
        if cold.missing.index:
            file.release()
