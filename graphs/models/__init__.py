"""Networks over graphs; importing this registers them. PyG is imported by the files that need it, when they do."""

from .attention import GraphAttention as GraphAttention
from .gated_gcn import GatedGCN as GatedGCN
from .gps import GPS as GPS
from .gps import GPSLayer as GPSLayer
from .network import GraphNetwork as GraphNetwork
