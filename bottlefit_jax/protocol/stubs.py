"""The protocol's messages, from tritonclient.

protobuf creates the classes at import, where a type checker does not see them.
"""

from typing import Any

try:
    from tritonclient.grpc import model_config_pb2, service_pb2
except RuntimeError as error:  # its word for an import that failed
    raise error.__cause__ or error from None

pb: Any = service_pb2
config_pb: Any = model_config_pb2
