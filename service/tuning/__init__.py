"""Finds the configuration that serves a model best on this machine, by serving it.

A candidate is a config.pbtxt; to measure one is to load and drive it exactly as the server does.

Path: tune_cli → **tuning** → models, batching, runtime.
"""
