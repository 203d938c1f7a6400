"""Changes of topics' settings, on the controller.

Owns what becomes of a wish for other settings: the check, and the one write of the topic's record
that says all settings and who set which.

Invariant: a fixed key keeps its value. `flush` is one: by it the replicas' data is known (rule 9),
and what was acknowledged before it changed could not be made as durable afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from cluster import errors
from cluster.core import records
from cluster.core.calls import Call
from cluster.core.configs import BROKER, TOPIC, Configs, Own
from cluster.core.controller import Controller
from cluster.core.defaults import INTERNAL_TOPICS, LIST, TopicDefaults
from cluster.core.effects import Put
from cluster.core.events import Commit
from cluster.core.forwarding import Decider
from cluster.core.image import Image
from cluster.core.records import TopicRecord
from cluster.limits import CONFIG_TRIES
from cluster.wire import messages

SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
Change = Callable[[TopicRecord], Own]
"""A topic's own settings as they shall be; raises ConfigError for what cannot be."""
Resource = messages.AlterConfigsResource | messages.IncrementalResource


class ConfigChanges:
    """Requests for other settings; decided while this broker is the controller."""

    def __init__(self, image: Image, defaults: TopicDefaults, configs: Configs) -> None:
        """`configs` checks; `defaults` are where a deleted setting goes back to."""
        self._image = image
        self._defaults = defaults
        self._configs = configs

    def alter(self, call: Call, decider: Decider) -> None:
        """Replace the settings of topics: what is not named goes back to its default."""
        request: messages.AlterConfigsRequest = call.body

        def change(resource: messages.AlterConfigsResource) -> Change:
            return lambda _topic: _given({entry.name: entry.value for entry in resource.configs})

        wishes = [(resource, change(resource)) for resource in request.resources]
        self._alter(call, decider, wishes, messages.AlterConfigsResponse)

    def alter_some(self, call: Call, decider: Decider) -> None:
        """Change single settings of topics."""
        request: messages.IncrementalAlterConfigsRequest = call.body

        def change(resource: messages.IncrementalResource) -> Change:
            return lambda topic: self._changed(topic, resource.configs)

        wishes = [(resource, change(resource)) for resource in request.resources]
        self._alter(call, decider, wishes, messages.IncrementalAlterConfigsResponse)

    def _alter(
        self,
        call: Call,
        decider: Decider,
        wishes: Sequence[tuple[Resource, Change]],
        response: type[messages.AlterConfigsResponse | messages.IncrementalAlterConfigsResponse],
    ) -> None:
        named = Counter((r.resource_type, r.resource_name) for r, _ in wishes)
        results: list[messages.AlterConfigsResourceResponse] = []

        def decide(resource: Resource, code: errors.Code, text: str | None = None) -> None:
            place = (resource.resource_type, resource.resource_name)
            results.append(messages.AlterConfigsResourceResponse(code.number, text, *place))
            if len(results) == len(wishes):
                call.answer(response(responses=results))

        if not wishes:
            call.answer(response())
        for resource, change in wishes:
            repeated = named[resource.resource_type, resource.resource_name] > 1
            refusal = self._refusal(resource, repeated=repeated)
            if isinstance(decider, errors.Code):
                decide(resource, decider)
            elif refusal is not None:
                decide(resource, *refusal)
            else:
                write = None if call.body.validate_only else decider
                _Alteration(self, resource, change, write, decide).attempt(CONFIG_TRIES)

    def _refusal(
        self, resource: Resource, *, repeated: bool
    ) -> tuple[errors.Code, str | None] | None:
        if repeated:
            return errors.INVALID_REQUEST, "the resource is named more than once"
        if resource.resource_type == BROKER:
            return errors.INVALID_REQUEST, "brokers read their settings from broker.toml at start"
        if resource.resource_type != TOPIC:
            return errors.INVALID_REQUEST, "only settings of topics (2) can be changed"
        if resource.resource_name in INTERNAL_TOPICS:
            return errors.INVALID_REQUEST, "the topic is the brokers' own"
        return None

    def _changed(self, topic: TopicRecord, wishes: Iterable[messages.AlterableConfig]) -> Own:
        own = {name: topic.config[name] for name in topic.own if name in topic.config}
        seen: set[str] = set()
        for wish in wishes:
            if wish.name in seen:
                raise errors.ConfigError("topic", wish.name, "one change of a key at a time")
            seen.add(wish.name)
            if wish.config_operation == DELETE:
                self._configs.checked({wish.name: self._defaults.config.get(wish.name, "")})
                own.pop(wish.name, None)
            elif wish.config_operation == SET:
                own |= _given({wish.name: wish.value})
            else:
                own[wish.name] = self._listed(topic, wish)
        return own

    def _listed(self, topic: TopicRecord, wish: messages.AlterableConfig) -> str:
        """A list with some elements more or fewer."""
        if wish.config_operation not in (APPEND, SUBTRACT):
            allowed = "an operation from 0 to 3"
            raise errors.ConfigError("topic", wish.name, f"{allowed}, not {wish.config_operation}")
        if self._defaults.key(wish.name).type != LIST:
            raise errors.ConfigError("topic", wish.name, "a list, to append to or subtract from")
        now = [item for item in topic.config.get(wish.name, "").split(",") if item]
        items = [item for item in (wish.value or "").split(",") if item]
        if wish.config_operation == APPEND:
            now += [item for item in items if item not in now]
        else:
            now = [item for item in now if item not in items]
        return ",".join(now)

    def altered(self, name: str, change: Change) -> tuple[TopicRecord, int]:
        """A topic's record as it shall be and the version it stands on; ConfigError or KeyError."""
        stored = self._image.topics[name]
        own = change(stored.value)
        fixed = {name for name, key in self._defaults.keys.items() if key.fixed}
        kept = {key: value for key, value in stored.value.config.items() if key in fixed}
        for key in fixed & own.keys():
            if own[key] != stored.value.config.get(key, own[key]):
                raise errors.ConfigError("topic", key, "no change: it is fixed with the topic")
        config = self._configs.checked({**own, **kept})
        names = {key for key in stored.value.own if key in fixed} | own.keys()
        changed = msgspec.structs.replace(stored.value, config=config, own=tuple(sorted(names)))
        return changed, stored.version

    def stored(self, topic: TopicRecord) -> bool:
        """Whether the image shows this record."""
        return self._image.topics_by_id.get(topic.topic_id) == topic


class _Alteration:
    """One topic's change until it is decided."""

    def __init__(
        self,
        changes: ConfigChanges,
        resource: Resource,
        change: Change,
        controller: Controller | None,
        decide: Callable[..., None],
    ) -> None:
        """Without a controller nothing is written: the wish is only checked."""
        self._changes = changes
        self._resource = resource
        self._change = change
        self._controller = controller
        self._decide = decide

    def attempt(self, tries: int) -> None:
        """Write on the version that the image shows; again when another write was faster."""
        try:
            changed, version = self._changes.altered(self._resource.resource_name, self._change)
        except KeyError:
            self._decide(self._resource, errors.UNKNOWN_TOPIC_OR_PARTITION)
            return
        except errors.ConfigError as error:
            self._decide(self._resource, errors.INVALID_CONFIG, str(error))
            return
        if self._controller is None or self._changes.stored(changed):
            self._decide(self._resource, errors.NONE)
            return

        def outcome(commit: Commit) -> None:
            if commit is Commit.COMMITTED or self._changes.stored(changed):
                self._decide(self._resource, errors.NONE)
            elif commit is Commit.CONFLICT and tries > 1:
                self.attempt(tries - 1)
            else:
                unknown = commit is Commit.UNKNOWN
                code = errors.REQUEST_TIMED_OUT if unknown else errors.NOT_CONTROLLER
                self._decide(self._resource, code, "try again")

        key = records.topic_key(changed.name)
        self._controller.write([(key, version)], [Put(key, records.encode(changed))], outcome)


def _given(own: Mapping[str, str | None]) -> Own:
    for name, value in own.items():
        if value is None:
            raise errors.ConfigError("topic", name, "a value, not null")
    return {name: value for name, value in own.items() if value is not None}
