"""AlterConfigs (key 33) and IncrementalAlterConfigs (key 44)."""

from __future__ import annotations

from msgspec import field

from cluster.wire.schema import Int8, Int16, Int32, Message


class AlterableSetting(Message):
    """One setting as it shall be (Kafka's AlterableConfig of AlterConfigs)."""

    name: str = ""
    value: str | None = None


class AlterConfigsResource(Message):
    """All settings of one resource; what is not named goes back to its default."""

    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[AlterableSetting] = field(default_factory=list)


class AlterConfigsRequest(Message):
    """Replace the settings of resources, or only say whether that could be done."""

    resources: list[AlterConfigsResource] = field(default_factory=list)
    validate_only: bool = False


class AlterConfigsResourceResponse(Message):
    """What became of one resource."""

    error_code: Int16 = 0
    error_message: str | None = None
    resource_type: Int8 = 0
    resource_name: str = ""


class AlterConfigsResponse(Message):
    """One entry for every resource of the request."""

    throttle_time_ms: Int32 = 0
    responses: list[AlterConfigsResourceResponse] = field(default_factory=list)


class AlterableConfig(Message):
    """One change: operation 0 sets, 1 deletes, 2 appends to a list, 3 takes out of it."""

    name: str = ""
    config_operation: Int8 = 0
    value: str | None = None


class IncrementalResource(Message):
    """The changes to one resource; what is not named stays (Kafka's AlterConfigsResource)."""

    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[AlterableConfig] = field(default_factory=list)


class IncrementalAlterConfigsRequest(Message):
    """Change single settings of resources, or only say whether that could be done."""

    resources: list[IncrementalResource] = field(default_factory=list)
    validate_only: bool = False


class IncrementalAlterConfigsResponse(Message):
    """One entry for every resource of the request."""

    throttle_time_ms: Int32 = 0
    responses: list[AlterConfigsResourceResponse] = field(default_factory=list)
