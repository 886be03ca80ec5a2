"""Shaped links, and what is measured over them. Runs where there is no JAX."""
