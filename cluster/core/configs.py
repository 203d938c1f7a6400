"""Settings of topics and of this broker: described, and those of topics changed.

Owns what becomes of a wish for other settings: the check, the one write of the topic's record, and
who set what. A topic's record holds every setting, those that nobody set too, as the defaults were
when it was made: another broker.toml later, or on another broker, changes no topic.

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
from cluster.core.controller import Controller
from cluster.core.defaults import (
    BROKER_FILE_SOURCE,
    DEFAULT_SOURCE,
    INTERNAL_TOPICS,
    LIST,
    TOPIC_SOURCE,
    BrokerSetting,
    CheckConfig,
    TopicDefaults,
)
from cluster.core.effects import Put
from cluster.core.events import Commit
from cluster.core.forwarding import Decider
from cluster.core.image import Image
from cluster.core.records import TopicRecord
from cluster.limits import CONFIG_TRIES
from cluster.wire import messages

TOPIC, BROKER = 2, 4
"""Types of resources."""
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
Own = dict[str, str]
"""Settings that somebody set, by name."""
Change = Callable[[TopicRecord], Own]
"""A topic's own settings as they shall be; raises ConfigError for what cannot be."""
Resource = messages.AlterConfigsResource | messages.IncrementalResource


class Configs:
    """Settings as one broker knows and, being the controller, changes them."""

    def __init__(
        self,
        image: Image,
        node_id: int,
        *,
        defaults: TopicDefaults,
        check: CheckConfig,
        broker: Sequence[BrokerSetting] = (),
    ) -> None:
        """`broker` are the settings of this broker itself."""
        self._image = image
        self._node_id = node_id
        self._defaults = defaults
        self._check = check
        self._broker = broker

    def checked(self, own: Mapping[str, str | None]) -> Own:
        """All settings of a topic with these of its own; ConfigError for what may not be."""
        for name, value in own.items():
            if value is None:
                raise errors.ConfigError("topic", name, f"{self._allowed(name)}, not null")
        given = {name: value for name, value in own.items() if value is not None}
        config = {**self._defaults.config, **given}
        self._check(config)
        return config

    def _allowed(self, name: str) -> str:
        return self._defaults.key(name).allowed or "a value"

    # -- describing ---------------------------------------------------------------------------

    def describe(self, call: Call) -> messages.DescribeConfigsResponse:
        """The settings of topics and of this broker, defaults included and marked as such."""
        request: messages.DescribeConfigsRequest = call.body
        results = []
        for resource in request.resources:
            found = self._described(resource, request)
            code, text = errors.NONE, None
            if isinstance(found, tuple):
                (code, text), found = found, []
            results.append(
                messages.DescribeConfigsResult(
                    error_code=code.number,
                    error_message=text,
                    resource_type=resource.resource_type,
                    resource_name=resource.resource_name,
                    configs=found,
                )
            )
        return messages.DescribeConfigsResponse(results=results)

    def _described(
        self,
        resource: messages.DescribeConfigsResource,
        request: messages.DescribeConfigsRequest,
    ) -> list[messages.DescribeConfigsResourceResult] | tuple[errors.Code, str | None]:
        synonyms, documented = request.include_synonyms, request.include_documentation
        if resource.resource_type == TOPIC:
            topic = self._image.topics.get(resource.resource_name)
            if topic is None:
                return errors.UNKNOWN_TOPIC_OR_PARTITION, None
            entries = self.of_topic(
                topic.value, resource.configuration_keys, synonyms=synonyms, documented=documented
            )
            return entries
        if resource.resource_type != BROKER:
            return errors.INVALID_REQUEST, "only topics (2) and brokers (4) have settings here"
        if resource.resource_name not in ("", str(self._node_id)):
            text = f"this is broker {self._node_id}: each describes itself"
            return errors.INVALID_REQUEST, text
        if not resource.resource_name:
            return []  # what all brokers were told while they run: nothing
        return [
            self._of_broker(setting, synonyms)
            for setting in self._broker
            if _asked(setting.name, resource.configuration_keys)
        ]

    def of_topic(
        self,
        topic: TopicRecord,
        asked: Sequence[str] | None,
        *,
        synonyms: bool = False,
        documented: bool = False,
    ) -> list[messages.DescribeConfigsResourceResult]:
        """A topic's settings by name; None asks for all of them."""
        entries = []
        for name, value in sorted({**self._defaults.config, **topic.config}.items()):
            if not _asked(name, asked):
                continue
            key, own = self._defaults.key(name), name in topic.own
            entries.append(
                messages.DescribeConfigsResourceResult(
                    name=name,
                    value=value,
                    read_only=key.fixed,
                    config_source=TOPIC_SOURCE if own else self._defaults.source(name),
                    synonyms=self._synonyms(name, value, own=own) if synonyms else [],
                    config_type=key.type,
                    documentation=key.allowed if documented else None,
                )
            )
        return entries

    def _synonyms(
        self, name: str, value: str, *, own: bool
    ) -> list[messages.DescribeConfigsSynonym]:
        listed = []
        if own:
            listed.append(messages.DescribeConfigsSynonym(name, value, TOPIC_SOURCE))
        default = self._defaults.config.get(name)
        if default is not None:
            known_as = self._defaults.key(name).broker_name or name
            source = self._defaults.source(name)
            listed.append(messages.DescribeConfigsSynonym(known_as, default, source))
        return listed

    def _of_broker(
        self, setting: BrokerSetting, synonyms: bool
    ) -> messages.DescribeConfigsResourceResult:
        source = DEFAULT_SOURCE if setting.default else BROKER_FILE_SOURCE
        same = messages.DescribeConfigsSynonym(setting.name, setting.value, source)
        return messages.DescribeConfigsResourceResult(
            name=setting.name,
            value=setting.value,
            read_only=True,
            config_source=source,
            synonyms=[same] if synonyms else [],
            config_type=setting.type,
        )

    # -- changing -----------------------------------------------------------------------------

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
                self.checked({wish.name: self._defaults.config.get(wish.name, "")})
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
        config = self.checked({**own, **kept})
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
        configs: Configs,
        resource: Resource,
        change: Change,
        controller: Controller | None,
        decide: Callable[..., None],
    ) -> None:
        """Without a controller nothing is written: the wish is only checked."""
        self._configs = configs
        self._resource = resource
        self._change = change
        self._controller = controller
        self._decide = decide

    def attempt(self, tries: int) -> None:
        """Write on the version that the image shows; again when another write was faster."""
        try:
            changed, version = self._configs.altered(self._resource.resource_name, self._change)
        except KeyError:
            self._decide(self._resource, errors.UNKNOWN_TOPIC_OR_PARTITION)
            return
        except errors.ConfigError as error:
            self._decide(self._resource, errors.INVALID_CONFIG, str(error))
            return
        if self._controller is None or self._configs.stored(changed):
            self._decide(self._resource, errors.NONE)
            return

        def outcome(commit: Commit) -> None:
            if commit is Commit.COMMITTED or self._configs.stored(changed):
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


def _asked(name: str, asked: Sequence[str] | None) -> bool:
    return asked is None or name in asked
