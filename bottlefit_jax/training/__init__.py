"""Stages of training, the one loop that runs them, and what it stands on: losses, sharding, checkpoints."""
