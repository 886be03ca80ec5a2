"""The edge server: tails of bundles behind the Open Inference Protocol. `python -m bottlefit_jax.serve --help`."""
