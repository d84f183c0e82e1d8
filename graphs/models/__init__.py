"""Networks over graphs; importing this registers them. PyG is imported by the files that need it, when they do."""

from .attention import GraphAttention as GraphAttention
from .fisher import FisherInformationLayer as FisherInformationLayer
from .fisher import FisherInformationPooling as FisherInformationPooling
from .gated_gcn import GatedGCN as GatedGCN
from .gps import GPS as GPS
from .gps import GPSLayer as GPSLayer
from .gps_nodes import gps_cora as gps_cora
from .graph_transformer import GraphTransformer as GraphTransformer
from .network import GraphNetwork as GraphNetwork
from .point_transformer import PointTransformer as PointTransformer
from .point_transformer import PointTransformerLayer as PointTransformerLayer
from .pointer_network import PointerHead as PointerHead
from .pointer_network import PointerNetwork as PointerNetwork
from .virtual_node import MessagePassing as MessagePassing
