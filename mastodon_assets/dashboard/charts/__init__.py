"""Charts as SVG, drawn from numbers and texts by functions without side effects."""
