"""What is claimed of CUDA, checked on a GPU; skipped with the reason where there is none.

They need numpy, onnx, onnxruntime-gpu, protobuf and pytest, and neither export nor the root's conftest, so
that a bare GPU machine can run them:

    python -m pytest -c /dev/null --rootdir . --noconftest tests/gpu
"""
