"""The device: runs the head. Nothing here imports JAX."""
