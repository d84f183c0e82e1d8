"""Colours that every kind of colour vision tells apart (Okabe and Ito, "Color Universal Design", 2008).

What they mean always stands beside them in words or marks, so that nothing depends on colour alone.
"""

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, BLACK = "#E69F00", "#56B4E9", "#F0E442", "#000000"
GRAY = "#555555"  # what was seen, of which nothing is claimed

RIGHT, WRONG, NEUTRAL = BLUE, VERMILION, "#333333"
# For lines and points on white, on which yellow is not seen.
DISTINCT = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
