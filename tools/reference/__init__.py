"""Writes docs/reference/ from the code: `python -m tools.reference`, or `make reference`.

A page is a function in a file of its own and a row of `pages.PAGES`; tests/tools/test_reference.py compares what it
returns with the file. docs/reference/payload.md is written by hand; `vectors` makes its test vectors, from tables that
are fixed.
"""
