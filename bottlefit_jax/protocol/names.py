"""The names that both sides of the protocol use, each defined once. Standard library only."""

SERVICE = "inference.GRPCInferenceService"
# tensors: the two inputs, of which a request has one; the outputs, the last of which holds the ids of head and tail
INPUT, PAYLOAD = "latent", "payload"
OUTPUT, PROBABILITIES, IDENTITY = "logits", "probabilities", "identity"
# parameters: the ids of head and tail, and the manifest's format
HEAD, TAIL, FORMAT = "head", "tail", "format"
# parameter of a model that takes payloads: the key of its rates; its parameter PAYLOAD is the version of payloads
RATES = "rates"
# ensemble of a model on Triton that takes payloads: the model's name and this
PAYLOAD_SUFFIX = "-payload"
# parameter of a request: microseconds that it may take
TIMEOUT = "timeout"
# parameter of a requested output, of Triton's classification extension: how many of the likeliest classes it has
CLASSIFICATION = "classification"
# parameters of a response: microseconds in the queue, of decoding and in the tail, images that the tail ran at once
QUEUE_US, DECODE_US, TAIL_US, BATCH = "queue_us", "decode_us", "tail_us", "batch"
# hexadecimal digits of an id that requests and responses hold, of 64; as bytes two such ids are IDENTITY, [32] uint8
ID_DIGITS = 32
