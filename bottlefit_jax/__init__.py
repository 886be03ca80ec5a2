"""BottleFit-JAX: split computing with learned bottlenecks, from training to deployment.

Each room exports its public names: `from bottlefit_jax.edge import EdgeClient`. `bottlefit --help` lists the commands.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
