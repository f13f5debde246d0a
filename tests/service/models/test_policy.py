"""What config.pbtxt says about queueing and batching."""

import math

import pytest
from google.protobuf import text_format

from protos import model_config_pb2
from service import errors
from service.batching import policy as batching_policy
from service.models import policy


def of(text: str) -> batching_policy.Policy:
    return policy.of(text_format.Parse('name: "m" ' + text, model_config_pb2.ModelConfig()))


def test_without_a_batch_a_request_is_a_run() -> None:
    read = of("max_batch_size: 0")
    assert (read.batch_samples_max, read.merges_requests, read.has_batch_axis) == (1, False, False)


def test_without_dynamic_batching_requests_are_not_merged() -> None:
    read = of("max_batch_size: 8")
    assert (read.batch_samples_max, read.merges_requests, read.has_batch_axis) == (8, False, True)


def test_dynamic_batching_merges_requests_at_once_unless_a_delay_is_given() -> None:
    assert of("max_batch_size: 8 dynamic_batching {}").delay_s == 0.0
    delayed = of("max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 1500 }")
    assert delayed.merges_requests
    assert delayed.delay_s == 0.0015


def test_preferred_sizes_are_taken_in_order_and_once() -> None:
    text = "max_batch_size: 8 dynamic_batching { preferred_batch_size: [8, 2, 2] }"
    assert of(text).preferred_samples == (2, 8)


@pytest.mark.parametrize("size", [0, 9])
def test_a_preferred_size_that_no_batch_can_have_is_an_error(size: int) -> None:
    with pytest.raises(errors.ModelLoadError, match="expected values from 1 to max_batch_size, 8"):
        of(f"max_batch_size: 8 dynamic_batching {{ preferred_batch_size: {size} }}")


def test_without_priorities_there_is_one_level_and_a_request_s_timeout_counts() -> None:
    read = of("max_batch_size: 8 dynamic_batching {}")
    assert read.levels == (batching_policy.Level(),)
    assert read.default_priority == 1
    assert read.levels[0].allows_override


def test_each_priority_has_its_own_policy_or_the_default_one() -> None:
    read = of(
        """max_batch_size: 8 dynamic_batching {
          priority_levels: 3 default_priority_level: 2
          default_queue_policy { default_timeout_microseconds: 2000 allow_timeout_override: true max_queue_size: 5 }
          priority_queue_policy { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 4000 } }
        }"""
    )
    assert read.default_priority == 2
    default = batching_policy.Level(timeout_s=0.002, requests_max=5)
    demoting = batching_policy.Level(timeout_s=0.004, timeout_demotes=True, allows_override=False)
    assert read.levels == (default, default, demoting)
    assert read.level(3) is read.levels[2]


def test_a_timeout_of_zero_is_none() -> None:
    read = of("max_batch_size: 8 dynamic_batching { default_queue_policy { max_queue_size: 1 } }")
    assert read.levels[0].timeout_s == math.inf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("priority_levels: 2", "expected a value from 1 to 2"),
        ("priority_levels: 2 default_priority_level: 3", "expected a value from 1 to 2"),
        ("priority_levels: 2000 default_priority_level: 1", "at most 1024"),
        (
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value {} }",
            "its priorities are 1 to priority_levels, 2",
        ),
    ],
)
def test_priorities_that_contradict_one_another_are_errors(text: str, said: str) -> None:
    with pytest.raises(errors.ModelLoadError, match=said):
        of(f"max_batch_size: 8 dynamic_batching {{ {text} }}")
