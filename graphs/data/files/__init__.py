"""Files of graphs: tables, GraphML, edge lists, Planetoid, TU folders and the Data of PyG."""
