"""One run: what it opens, the order of its stages, and what it shows at the end."""
