"""Measures split, local and JPEG over a link of a given rate and delay. `python -m bottlefit_jax.edge.bench`."""
