"""The Fovea server: images in over gRPC, 4-D batches through ONNX Runtime, answers and measurements out.

A request's way, and where each step lives:

    bytes ─wire─▶ images: (H,W,C) uint8 ─batching─▶ row i of (N,H,W,C) ─runtime─▶ (N,K) float32 ─wire─▶ labels / tensors
                                          waits only while the device is busy or the config asks for a delay

`wire` is all that knows gRPC; `images` owns the codecs; `engine` is the one door to the models;
`models` reads the repository; `batching` decides who runs together; `runtime` owns ONNX Runtime.
"""
