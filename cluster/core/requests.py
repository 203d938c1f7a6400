"""Client requests: decode, decide who serves, answer.

Owns the dispatch of one turn's requests by API. Produce requests of the whole turn go to the
append stage in one call; reads are answered at once or parked; what changes the cluster goes to
the controller's code and is answered when the store has decided. A frame that cannot be read costs
its connection and a counter, nothing else (rule 13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from _fastseq.produce import Routes
from cluster import errors
from cluster.core.append import Append
from cluster.core.calls import Call, Handlers
from cluster.core.effects import Hangup, Harm, Reply
from cluster.core.events import ClientMessage
from cluster.core.faults import Faults
from cluster.core.fetch import Fetches
from cluster.core.hosted import Appended, Find
from cluster.core.image import Image
from cluster.core.metadata import address_of
from cluster.core.outbox import Outbox
from cluster.core.producers import ProducerIds
from cluster.core.reads import Reads
from cluster.core.validate import refused
from cluster.wire import apis, codec, messages
from cluster.wire.primitives import UnknownApi, UnsupportedVersion, WireError


class Requests:
    """Everything that clients may ask of one broker."""

    def __init__(
        self, image: Image, out: Outbox, find: Find, *,
        producer_ids: ProducerIds, faults: Faults, reads: Reads, routes: Routes,
        wall_offset_ms: int,
    ) -> None:  # fmt: skip
        """`find` gives this broker's partition of a topic, `routes` the same for produce requests;
        others register what they serve. `wall_offset_ms` is what the clock on the wall is ahead.
        """
        self._out = out
        self._image = image
        self._find = find
        self._producer_ids = producer_ids
        self._faults = faults
        self._wall_offset_ms = wall_offset_ms
        out.answers.endpoint = self._endpoint
        self.fetches = Fetches(find, reads)
        self.append = Append(out.answers, routes, producer_ids.above_bound, refused)
        self.requests: Counter[int] = Counter()
        self.rejected: Counter[str] = Counter()
        self.handlers = Handlers()
        self.register = self.handlers.register
        self.register(messages.FetchRequest, self.fetches.serve)
        self.register(messages.InitProducerIdRequest, self._init_producer_id)
        self.register(messages.FaultRequest, self._fault)

    def serve(self, turn: Sequence[ClientMessage], now_ms: int) -> list[Appended]:
        """Serve a turn's requests in order of arrival; what it appended, for who follows."""
        for message in self.append.collect(turn):
            try:
                self._serve_one(message, now_ms)
            except UnsupportedVersion as error:
                self._unsupported(message, error)
            except WireError as error:
                self.rejected[type(error).__name__] += 1
                self._out.emit(Hangup(message.connection, str(error)))
        return self._produce(now_ms) if self.append.collected else []

    def _produce(self, now_ms: int) -> list[Appended]:
        """All produce requests of the turn, once the others are served."""
        self.requests[apis.PRODUCE] += self.append.collected
        faults = self._faults
        bad = self.append.take(now_ms, faults.loses_reply if faults.drops_acks else None)
        for connection, reason, version in bad:
            self.rejected["UnsupportedVersion" if version else "WireError"] += 1
            self._out.emit(Hangup(connection, reason))
        return self.append.run(self._producer_ids.bound, now_ms, now_ms + self._wall_offset_ms)

    def _endpoint(self, node_id: int, native: bool) -> tuple[str, int, None] | None:
        """Where clients find the leader of a partition that is not led here; no rack is known."""
        broker = self._image.brokers.get(node_id)
        address = None if broker is None else address_of(broker.value, native=native)
        return None if address is None else (*address, None)

    def _serve_one(self, message: ClientMessage, now_ms: int) -> None:
        header, body = codec.decode_request(message.frame)
        if header.api_key >= apis.OURS_FROM and not message.native:
            raise UnknownApi("no such API", header.api_key, header.api_version, 0)
        self.requests[header.api_key] += 1
        self.handlers.serve(
            Call(
                body=body,
                header=header,
                connection=message.connection,
                native=message.native,
                now_ms=now_ms,
                frame=message.frame,
                out=self._out,
            )
        )

    def _init_producer_id(self, call: Call) -> messages.InitProducerIdResponse:
        if call.body.transactional_id is not None:
            code = errors.TRANSACTIONAL_ID_AUTHORIZATION_FAILED.number
            return messages.InitProducerIdResponse(error_code=code)
        error, producer_id = self._producer_ids.hand_out()
        epoch = -1 if error else 0
        return messages.InitProducerIdResponse(
            error_code=error, producer_id=producer_id, producer_epoch=epoch
        )

    def _fault(self, call: Call) -> messages.FaultResponse:
        response, harm = self._faults.order(call.body)
        if harm is not None:
            self._out.emit(Harm(harm))
        return response

    def _unsupported(self, message: ClientMessage, error: UnsupportedVersion) -> None:
        """ApiVersions is answered in version 0 so that the client can choose again (KIP-511)."""
        self.rejected["UnsupportedVersion"] += 1
        if error.api_key == apis.API_VERSIONS:
            frame = codec.api_versions_fallback(error.correlation_id)
            self._out.emit(Reply(message.connection, frame))
        else:
            self._out.emit(Hangup(message.connection, str(error)))
