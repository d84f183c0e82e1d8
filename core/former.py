"""Where modules that checkpoints named before they moved are today."""

# Checkpoints of before public names recorded files. A module that moves again gets another line; none is taken out.
FORMER: dict[str, str] = {}
