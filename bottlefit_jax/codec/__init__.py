"""NumPy only: latents to bytes and back."""
