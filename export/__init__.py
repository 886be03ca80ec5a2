"""A finished run as a bundle: LiteRT and ONNX for devices, ONNX and StableHLO for servers. Nothing imports this."""
