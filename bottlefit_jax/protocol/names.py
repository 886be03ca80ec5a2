"""The names that both sides of the protocol use, each defined once. Standard library only."""

SERVICE = "inference.GRPCInferenceService"
# tensors: the input, the output, and the output that holds the ids where a server cannot set parameters
INPUT, OUTPUT, IDENTITY = "latent", "logits", "identity"
# parameters: the ids of head and tail, and the manifest's format
HEAD, TAIL, FORMAT = "head", "tail", "format"
# parameter of a request: microseconds that it may take
TIMEOUT = "timeout"
# parameters of a response: microseconds in the queue and in the tail, images that the tail ran at once
QUEUE_US, TAIL_US, BATCH = "queue_us", "tail_us", "batch"
# hexadecimal digits of an id that requests and responses hold, of 64; as bytes two such ids are IDENTITY, [32] uint8
ID_DIGITS = 32
