"""The private descriptor pool of the generated modules.

Two Python packages that define the protobuf package `inference` cannot share protobuf's default pool
("duplicate symbol 'inference.ServerLiveRequest'"). Ours live here, so tritonclient imports beside
them, in either order. `protos.generate` points the generated code at it.
"""

from google.protobuf import any_pb2, descriptor_pool, duration_pb2

POOL = descriptor_pool.DescriptorPool()

for _imported in (any_pb2, duration_pb2):  # what our files import has to be there before them
    POOL.AddSerializedFile(_imported.DESCRIPTOR.serialized_pb)
