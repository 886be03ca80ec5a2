"""What commands do alike: the outermost frame, flags, configs, one-line errors. It knows no network."""
