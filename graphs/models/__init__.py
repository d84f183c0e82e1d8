"""Graph models; importing this registers them."""
