"""Where modules, classes and functions that checkpoints named before they moved are today."""

# Checkpoints of before public names recorded files. What moves again gets another line; none is taken out.
FORMER: dict[str, str] = {
    "quintet.core.attention.linear.elu_plus_one": "quintet.core.attention.feature_maps.elu_plus_one",
    "quintet.core.attention.cross": "quintet.core.attention.dense.cross",
    "quintet.core.attention.delta": "quintet.core.attention.linear.delta",
    "quintet.core.attention.diagonal": "quintet.core.attention.patterns.diagonal",
    "quintet.core.attention.gated_linear": "quintet.core.attention.linear.gated_linear",
    "quintet.core.attention.neighborhood": "quintet.core.attention.local.neighborhood",
    "quintet.core.attention.prob_sparse": "quintet.core.attention.sparse.prob_sparse",
    "quintet.core.attention.retention": "quintet.core.attention.linear.retention",
    "quintet.core.attention.segment": "quintet.core.attention.dense.segment",
    "quintet.core.attention.softmax": "quintet.core.attention.dense.softmax",
    "quintet.core.attention.window": "quintet.core.attention.local.window",
    "quintet.core.block": "quintet.core.blocks.block",
    "quintet.core.described": "quintet.core.weights.described",
    "quintet.core.dropout": "quintet.core.regularization.dropout",
    "quintet.core.encoder": "quintet.core.blocks.encoder",
    "quintet.core.finite": "quintet.core.learning.finite",
    "quintet.core.lora": "quintet.core.adaptation.lora",
    "quintet.core.task": "quintet.core.learning.task",
    "quintet.core.trusted": "quintet.core.weights.trusted",
}
