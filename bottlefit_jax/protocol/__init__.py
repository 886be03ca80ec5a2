"""The Open Inference Protocol's messages, made and checked, for the device and the server. No sockets, no JAX."""
