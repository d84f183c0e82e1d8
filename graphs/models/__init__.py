"""Graph models; importing this registers them."""

from .fisher import FisherInformationLayer as FisherInformationLayer
from .fisher import FisherInformationPooling as FisherInformationPooling
from .point_transformer import PointTransformer as PointTransformer
from .point_transformer import PointTransformerLayer as PointTransformerLayer
from .pointer_network import PointerHead as PointerHead
from .pointer_network import PointerNetwork as PointerNetwork
