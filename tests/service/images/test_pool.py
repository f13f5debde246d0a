"""Many requests through the pool: each gets its own rows, its own error, and nobody waits for the dropped."""

import asyncio
from typing import Any, SupportsIndex

import numpy as np
import pytest
from PIL import Image

from service import errors
from service.images import decode, pool
from tests.conftest import encoded
from tests.service.images import samples
from tests.service.images.samples import GRAY, LIMITS

GOOD = [encoded(np.full((32, 32), value, np.uint8), "PNG") for value in range(64)]
LARGE = samples.saved(samples.photo(), "PNG")


@pytest.fixture(params=[1, 2, 5], ids=lambda threads: f"{threads} threads")
def decoders(request: pytest.FixtureRequest) -> pool.DecodePool:
    made = pool.DecodePool(request.param, LIMITS)
    request.addfinalizer(made.close)
    return made


def values(decoded: pool.Decoded) -> list[int]:
    return [int(image[0, 0, 0]) for image in decoded.rows_nhwc]


async def test_the_pool_fails_the_bad_image_and_serves_its_neighbours(decoders: pool.DecodePool) -> None:
    first, bad, last = await asyncio.gather(
        decoders.decode(GOOD[:5], GRAY),
        decoders.decode([GOOD[0], b"nonsense", *GOOD], GRAY),
        decoders.decode(GOOD[3:5], GRAY),
        return_exceptions=True,
    )
    assert isinstance(first, pool.Decoded)
    assert isinstance(last, pool.Decoded)
    assert (values(first), values(last)) == ([0, 1, 2, 3, 4], [3, 4])
    assert isinstance(bad, errors.BadImage)
    assert bad.index == 1


async def test_many_requests_get_their_own_rows(decoders: pool.DecodePool) -> None:
    requests = [GOOD[first : first + 1 + first % 7] + [LARGE] * (first % 3 == 0) for first in range(50)]
    answers = await asyncio.gather(*(decoders.decode(files, GRAY) for files in requests))
    for first, answer in enumerate(answers):
        small = 1 + first % 7
        assert values(answer)[:small] == list(range(first, first + small))
        assert answer.decode_s > 0


class Watched(list[bytes]):
    """Files that count how many of them have been taken to be decoded."""

    taken = 0

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        self.taken += 1
        return super().__getitem__(index)


async def test_the_rest_of_a_cancelled_request_is_dropped_and_the_pool_goes_on(decoders: pool.DecodePool) -> None:
    files = Watched([LARGE] * 200)
    cancelled = asyncio.create_task(decoders.decode(files, GRAY))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert values(await decoders.decode(GOOD[:3], GRAY)) == [0, 1, 2]
    assert cancelled.cancelled()
    assert files.taken < 100


async def test_the_rest_of_a_failed_request_is_dropped(decoders: pool.DecodePool) -> None:
    files = Watched([b"nonsense"] + [LARGE] * 200)
    with pytest.raises(errors.BadImage):
        await decoders.decode(files, GRAY)
    assert values(await decoders.decode(GOOD[:3], GRAY)) == [0, 1, 2]
    assert files.taken < 100


async def test_rows_of_answered_requests_are_never_written_again(decoders: pool.DecodePool) -> None:
    kept = await decoders.decode(GOOD[:4], GRAY)
    await asyncio.gather(*(decoders.decode(GOOD[10:14], GRAY) for _ in range(20)))
    assert values(kept) == [0, 1, 2, 3]


async def test_images_of_different_sizes_are_refused_where_they_keep_their_size(decoders: pool.DecodePool) -> None:
    files = [encoded(np.zeros((side, 9), np.uint8), "PNG") for side in (8, 9)]
    with pytest.raises(errors.BadImage, match="image 1: the image is 9x9"):
        await decoders.decode(files, samples.AS_IT_IS)
    assert (await decoders.decode(files[:1], samples.AS_IT_IS)).rows_nhwc.shape == (1, 8, 9, 3)


async def test_the_estimate_grows_with_what_waits_and_is_shared_by_the_threads() -> None:
    decoders = pool.DecodePool(2, LIMITS)
    assert decoders.decode_s_estimate(8) == 0  # nothing known yet
    await decoders.decode(GOOD, GRAY)
    alone_s = decoders.decode_s_estimate(1)
    assert alone_s > 0
    assert decoders.decode_s_estimate(0) == 0
    assert decoders.decode_s_estimate(8) == pytest.approx(4 * alone_s)
    waiting = asyncio.create_task(decoders.decode(GOOD[:20], GRAY))
    await asyncio.sleep(0)  # accepted, not delivered: that takes another turn of this loop
    assert decoders.decode_s_estimate(8) == pytest.approx(14 * alone_s)
    await waiting
    assert decoders.decode_s_estimate(2) == decoders.decode_s_estimate(1)
    decoders.close()


async def test_the_estimate_follows_the_images() -> None:
    decoders = pool.DecodePool(1, LIMITS)
    await decoders.decode(GOOD[:1], GRAY)
    small_s = decoders.decode_s_estimate(1)
    large = samples.saved(Image.new("L", (2000, 1500)), "PNG")
    await decoders.decode([large] * 40, GRAY)
    assert decoders.decode_s_estimate(1) > small_s
    decoders.close()


async def test_images_that_keep_their_size_are_held_up_to_a_limit_as_long_as_anybody_has_them() -> None:
    picture = samples.saved(Image.new("RGB", (10, 10)), "PNG")
    decoders = pool.DecodePool(1, decode.Limits(2**20, 200))
    try:
        held = [(await decoders.decode([picture] * 2, samples.AS_IT_IS)).rows_nhwc for _ in range(4)]
        with pytest.raises(
            errors.ImagesFull, match="have 100 pixels, and 800 of others are unanswered; the limit is 800"
        ):
            await decoders.decode([picture], samples.AS_IT_IS)
        assert (await decoders.decode([picture] * 9, samples.RGB)).rows_nhwc.shape[0] == 9, "small rows do not count"
        row = held.pop()[1:]  # a part of it keeps all of it
        with pytest.raises(errors.ImagesFull):
            await decoders.decode([picture], samples.AS_IT_IS)
        del row
        await asyncio.sleep(0)
        await decoders.decode([picture] * 2, samples.AS_IT_IS)
    finally:
        decoders.close()
