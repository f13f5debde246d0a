"""A live view of running servers, from what they publish at /metrics.

Path: addresses ─places, scrape─▶ samples of one moment ─figures─▶ rates between two ─table─▶ terminal.

Everything is a difference of two scrapes: counters and histograms only grow, so nothing is asked of the server that it
does not publish anyway, and several viewers do not disturb each other. A number whose metric is missing is a dash.
"""
