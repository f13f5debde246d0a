"""What a model's config.pbtxt says about queueing and batching, as the batcher's plain policy.

Path: config → **policy** → lifecycle.
"""

import math

from protos import model_config_pb2
from service import errors
from service.batching import policy

_LEVELS_MAX = 1024


def of(config: model_config_pb2.ModelConfig) -> policy.Policy:
    """Return the policy of a completed config.

    Raises:
        ModelLoadError: sizes or priorities that contradict one another.
    """
    batching = config.dynamic_batching
    if config.max_batch_size == 0:
        return policy.Policy(batch_samples_max=1, merges_requests=False, has_batch_axis=False, levels=_levels(config))
    return policy.Policy(
        batch_samples_max=config.max_batch_size,
        merges_requests=config.HasField("dynamic_batching"),
        delay_s=batching.max_queue_delay_microseconds / 1e6,
        preferred_samples=_preferred(config),
        levels=_levels(config),
        default_priority=batching.default_priority_level or 1,
    )


def _preferred(config: model_config_pb2.ModelConfig) -> tuple[int, ...]:
    sizes = sorted(set(config.dynamic_batching.preferred_batch_size))
    if sizes and (sizes[0] < 1 or sizes[-1] > config.max_batch_size):
        raise errors.ModelLoadError(
            config.name,
            f"config.pbtxt says preferred_batch_size {sizes}; expected values from 1 to max_batch_size, "
            f"{config.max_batch_size}",
        )
    return tuple(sizes)


def _levels(config: model_config_pb2.ModelConfig) -> tuple[policy.Level, ...]:
    batching = config.dynamic_batching
    count = batching.priority_levels
    if count > _LEVELS_MAX:
        raise errors.ModelLoadError(config.name, f"config.pbtxt says priority_levels {count}; at most {_LEVELS_MAX}")
    if count and not 1 <= batching.default_priority_level <= count:
        raise errors.ModelLoadError(
            config.name,
            f"config.pbtxt says default_priority_level {batching.default_priority_level}; "
            f"with priority_levels {count} expected a value from 1 to {count}",
        )
    beyond = [level for level in batching.priority_queue_policy if not 1 <= level <= count]
    if beyond:
        raise errors.ModelLoadError(
            config.name,
            f"config.pbtxt has priority_queue_policy for {beyond}; its priorities are 1 to priority_levels, {count}",
        )
    default = policy.Level()
    if batching.HasField("default_queue_policy"):
        default = _level(batching.default_queue_policy)
    return tuple(
        _level(batching.priority_queue_policy[number]) if number in batching.priority_queue_policy else default
        for number in range(1, max(1, count) + 1)
    )


def _level(said: model_config_pb2.ModelQueuePolicy) -> policy.Level:
    return policy.Level(
        timeout_s=said.default_timeout_microseconds / 1e6 or math.inf,
        timeout_demotes=said.timeout_action == model_config_pb2.ModelQueuePolicy.DELAY,
        allows_override=said.allow_timeout_override,
        requests_max=said.max_queue_size,
    )
