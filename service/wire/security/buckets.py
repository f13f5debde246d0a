"""The arithmetic of a rate: a bucket that fills steadily and is drawn from.

Path: guard → **buckets**. No clock: times go in.
"""


class Bucket:
    """Images that may come now: as many as `burst`, growing by `rate_per_s`.

    A request is let in whole while one image is there, and what it takes too much is paid back by waiting: so a
    request larger than the burst is not refused for ever, and over time the rate holds.

    Mutable state: the images there and when they were counted; touched only on the event loop.
    """

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._there = burst
        self._counted_s = now_s

    def take(self, images: int, now_s: float) -> float:
        """Take images, and return 0; or take none, and return the seconds until some may come."""
        self._there = min(self.burst, self._there + self.rate_per_s * max(0.0, now_s - self._counted_s))
        self._counted_s = now_s
        least = min(1.0, self.burst)
        if self._there < least:
            return (least - self._there) / self.rate_per_s
        self._there -= images
        return 0.0

    def give_back(self, images: int) -> None:
        """Put images back that were not served."""
        self._there = min(self.burst, self._there + images)
