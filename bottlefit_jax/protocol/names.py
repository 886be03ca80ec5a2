"""Names of tensors, and sizes, that both sides of the protocol agree on."""

INPUT, OUTPUT, IDENTITY = "latent", "logits", "identity"
ID_DIGITS = 32  # of a head's or tail's id, as requests and answers carry them
