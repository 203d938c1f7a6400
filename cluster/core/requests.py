"""Client requests: decode, decide who serves, answer.

Owns the dispatch of one turn's requests by API. Produce requests of the whole turn go to the
append stage in one call; reads are answered at once or parked; what changes the cluster goes to
the controller's code and is answered when the store has decided. A frame that cannot be read costs
its connection and a counter, nothing else (rule 13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cluster import errors
from cluster.core.answer import ProduceAnswer
from cluster.core.append import Append
from cluster.core.calls import Call, Handlers
from cluster.core.effects import Hangup, Harm, Reply
from cluster.core.events import ClientMessage
from cluster.core.faults import Faults
from cluster.core.fetch import Fetches
from cluster.core.hosted import Appended, Entry, Find
from cluster.core.image import Image
from cluster.core.outbox import Outbox
from cluster.core.producers import ProducerIds
from cluster.core.reads import Reads
from cluster.core.validate import entries_of
from cluster.limits import PRODUCE_WAIT_MS_MAX
from cluster.wire import apis, codec, messages
from cluster.wire.primitives import UnknownApi, UnsupportedVersion, WireError


class Requests:
    """Everything that clients may ask of one broker."""

    def __init__(
        self, image: Image, out: Outbox, find: Find, *,
        producer_ids: ProducerIds, faults: Faults, reads: Reads,
    ) -> None:  # fmt: skip
        """`find` gives this broker's partition of a topic; others register what they serve."""
        self._out = out
        self._image = image
        self._find = find
        self._producer_ids = producer_ids
        self._faults = faults
        self.fetches = Fetches(find, reads)
        self.append = Append(producer_ids.above_bound)
        self.requests: Counter[int] = Counter()
        self.rejected: Counter[str] = Counter()
        self._entries: list[Entry] = []
        self._answers: list[ProduceAnswer] = []
        self.handlers = Handlers()
        self.register = self.handlers.register
        self.register(messages.FetchRequest, self.fetches.serve)
        self.register(messages.InitProducerIdRequest, self._init_producer_id)
        self.register(messages.FaultRequest, self._fault)

    def serve(self, turn: Sequence[ClientMessage], now_ms: int) -> list[Appended]:
        """Serve a turn's requests in order of arrival; what it appended, for who follows."""
        for message in turn:
            try:
                self._serve_one(message, now_ms)
            except UnsupportedVersion as error:
                self._unsupported(message, error)
            except WireError as error:
                self.rejected[type(error).__name__] += 1
                self._out.emit(Hangup(message.connection, str(error)))
        return self._append(now_ms)

    def _append(self, now_ms: int) -> list[Appended]:
        entries, self._entries = self._entries, []
        answers, self._answers = self._answers, []
        appended = self.append.run(entries, self._producer_ids.bound, now_ms) if entries else []
        for answer in answers:
            if not answer.waiting:
                self._out.reply(answer)
        return appended

    def _serve_one(self, message: ClientMessage, now_ms: int) -> None:
        header, body = codec.decode_request(message.frame)
        if header.api_key >= apis.OURS_FROM and not message.native:
            raise UnknownApi("no such API", header.api_key, header.api_version, 0)
        self.requests[header.api_key] += 1
        if isinstance(body, messages.ProduceRequest):
            self._produce(message, header, body, now_ms)
            return
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

    def _produce(
        self,
        message: ClientMessage,
        header: codec.RequestHeader,
        body: messages.ProduceRequest,
        now_ms: int,
    ) -> None:
        wait_ms = min(max(body.timeout_ms, 0), PRODUCE_WAIT_MS_MAX)
        answer = ProduceAnswer(
            message.connection, header.correlation_id, header.api_version, body.acks,
            now_ms + wait_ms, faulty=self._faults.loses_reply(),
            native=message.native,
        )  # fmt: skip
        self._answers.append(answer)
        self._entries += entries_of(body, answer, self._find, native=message.native)

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
