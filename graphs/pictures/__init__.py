"""Pictures of graphs: drawings of molecules, and what a model makes of them."""
