"""BottleFit-JAX: split computing with learned bottlenecks, from training to deployment."""

__version__ = "0.1.0"
