"""Settings of topics and of this broker: checked and described.

Owns what is told of a setting: its value, its type, who set it. A topic's record holds every
setting, those that nobody set too, as the defaults were when it was made: another broker.toml
later, or on another broker, changes no topic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster import errors
from cluster.core.calls import Call
from cluster.core.defaults import (
    BROKER_FILE_SOURCE,
    DEFAULT_SOURCE,
    TOPIC_SOURCE,
    BrokerSetting,
    CheckConfig,
    TopicDefaults,
)
from cluster.core.image import Image
from cluster.core.records import TopicRecord
from cluster.wire import messages

TOPIC, BROKER = 2, 4
"""Types of resources."""
Own = dict[str, str]
"""Settings by name."""


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


def _asked(name: str, asked: Sequence[str] | None) -> bool:
    return asked is None or name in asked
