"""Busy seconds and saturation, in numbers worked out by hand."""

import threading
import time

import pytest

from service.metrics import occupancy
from tests.service.batching import test_batcher


def test_busy_seconds_count_by_the_share_that_is_taken() -> None:
    busy = occupancy.Busy()
    busy.occupy(0.5, 10.0)  # one of two instances
    busy.occupy(0.5, 12.0)  # both
    busy.occupy(-0.5, 13.0)
    assert busy.seconds(13.0) == pytest.approx(0.5 * 2 + 1.0)
    assert busy.seconds(15.0) == pytest.approx(3.0)  # while a run goes on, too
    busy.occupy(-0.5, 15.0)
    assert busy.seconds(99.0) == pytest.approx(3.0)


def test_two_models_on_one_device_take_no_more_than_all_of_it() -> None:
    busy = occupancy.Busy()
    busy.occupy(1.0, 0.0)
    busy.occupy(1.0, 1.0)
    busy.occupy(-1.0, 3.0)
    busy.occupy(-1.0, 4.0)
    assert busy.seconds(10.0) == pytest.approx(4.0)


def test_saturation_is_the_share_since_the_scrape_before() -> None:
    seconds = {0.0: 0.0, 60.0: 30.0, 120.0: 90.0}
    saturation = occupancy.Saturation(seconds.__getitem__, 0.0)
    assert saturation.read(60.0) == (30.0, pytest.approx(0.5))
    assert saturation.read(120.0) == (90.0, pytest.approx(1.0))


def test_saturation_of_frequent_scrapes_is_the_mean_of_some_seconds() -> None:
    """Busy for the first 10 s, then idle; read twice a second by one, and now and then by another."""
    saturation = occupancy.Saturation(lambda now_s: min(10.0, now_s), 0.0)
    shares = {step / 2: saturation.read(step / 2)[1] for step in range(1, 60)}
    assert shares[9.5] == pytest.approx(1.0)
    assert 0.2 < shares[12.5] < 0.6
    assert shares[20.0] == 0.0
    assert len(saturation._readings) <= occupancy.WINDOW_S + 2


def test_what_is_published_never_falls() -> None:
    """The event loop may have read the clock before the scrape did: a counter that falls is a restart to Prometheus."""
    busy = occupancy.Busy()
    busy.occupy(1.0, 0.0)
    saturation = occupancy.Saturation(busy.seconds, 0.0)
    before, _ = saturation.read(2.001)
    busy.occupy(-1.0, 2.0)
    assert busy.seconds(2.1) < before
    assert saturation.read(2.1)[0] == before


def test_a_threads_cpu_time_grows_with_its_work_and_not_with_its_waiting() -> None:
    ident, works, ends = [], threading.Event(), threading.Event()

    def work() -> None:
        ident.append(threading.get_ident())
        until_s = time.thread_time() + 0.2
        while time.thread_time() < until_s:
            pass
        works.set()
        ends.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert works.wait(60)
    cpu_s = occupancy.thread_cpu(ident[0])
    worked_s = cpu_s(0.0)
    assert worked_s >= 0.2
    time.sleep(0.3)  # the thread waits: that is what must not count
    assert cpu_s(0.0) - worked_s < 0.1
    ends.set()
    thread.join()


async def test_a_batcher_tells_what_its_runs_take_of_the_devices() -> None:
    bench = test_batcher.Bench()
    busy = occupancy.Busy()
    first = bench.send(1)
    await test_batcher.settle()
    bench.clock.advance(2.0)
    bench.runs.end(0)
    assert await first == [2]
    await test_batcher.settle()
    bench.clock.advance(5.0)
    failing = bench.send(3)
    await test_batcher.settle()
    bench.clock.advance(1.0)
    bench.runs.end(1, RuntimeError("a run that fails has taken the device, too"))
    await test_batcher.settle()
    assert failing.exception() is not None
    for share, now_s in bench.observed.shares:
        busy.occupy(share, now_s)
    assert [share for share, _ in bench.observed.shares] == [1.0, -1.0, 1.0, -1.0]
    assert busy.seconds(bench.clock.time()) == pytest.approx(3.0)


async def test_waiting_tells_requests_samples_and_the_oldest_age() -> None:
    bench = test_batcher.Bench()
    assert bench.batcher.waiting() == (0, 0, 0.0)
    running = bench.send(0)
    await test_batcher.settle()
    older = bench.send(1, 2)
    await test_batcher.settle()
    bench.clock.advance(3.0)
    newer = bench.send(3)
    await test_batcher.settle()
    bench.clock.advance(1.0)
    assert bench.batcher.waiting() == (3, 2, pytest.approx(4.0))
    bench.runs.end(0)
    await test_batcher.settle()
    assert bench.batcher.waiting() == (0, 0, 0.0)
    bench.runs.end(1)
    await running
    await older
    await newer
