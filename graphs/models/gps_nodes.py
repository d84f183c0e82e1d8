"""GPS for the nodes of one large graph of which few are labelled."""

from typing import Any

from ...core.attention import LinearAttention
from ...core.weights.registry import register_model
from .gps import GPS


@register_model("graphs/gps_cora")
def gps_cora(**arguments: Any) -> GPS:
    """GPS for citation graphs with few labels: dim 64, one layer of graph convolution and linear attention, dropout."""
    own = {"dim": 64, "depth": 1, "local": "gcn", "mixer": LinearAttention, "dropout": 0.3}
    return GPS(**own | {"halvings": 0, "head_dropout": 0.5} | arguments)
