"""The contract between export, service and clients: protobuf messages and the model manifest.

Everything registers in `protos.pool.POOL`, never in protobuf's default pool, because stock clients
register the same package `inference` there.
"""
