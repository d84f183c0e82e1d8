"""How a network is named, described, built, loaded and trusted."""
