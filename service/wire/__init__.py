"""All that knows gRPC and the protocol's messages; and the small HTTP port for Prometheus and probes.

Path: client → **wire** → images → engine → **wire** → client.
"""
