"""ONNX Runtime and the devices under it.

Path: batching → **runtime** → wire.
"""
