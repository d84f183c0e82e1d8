"""What is learned of graphs: numbers and classes of whole graphs, classes of nodes, links between them."""
