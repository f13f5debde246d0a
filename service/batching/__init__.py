"""Who runs together, and when. `planner` decides and does nothing; `batcher` does what it says.

Path: wire → images → **batching** → runtime.
"""
