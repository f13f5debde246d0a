"""Encoded files to uint8 pixels of the model's size. The only owner of the codecs.

Path: wire → **images** → batching.
"""
