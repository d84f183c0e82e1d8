"""Where modules, classes and functions that checkpoints named before they moved are today."""

# Checkpoints of before public names recorded files. What moves again gets another line; none is taken out.
FORMER: dict[str, str] = {
    "quintet.core.attention.linear.elu_plus_one": "quintet.core.attention.feature_maps.elu_plus_one",
}
