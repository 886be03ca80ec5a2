"""The device: runs the head. Nothing here imports JAX."""

import os

# gRPC reads this when it is imported. Its own resolver does not know names that only the system knows, as of mDNS.
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
