"""The private descriptor pool of the generated modules.

Two Python packages that define the protobuf package `inference` cannot share protobuf's default pool
("duplicate symbol 'inference.ServerLiveRequest'"). Ours live here, so tritonclient imports beside
them, in either order. `protos.generate` points the generated code at it.
"""

from google.protobuf import descriptor_pool

POOL = descriptor_pool.DescriptorPool()
