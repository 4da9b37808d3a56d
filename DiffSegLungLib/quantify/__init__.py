"""Numbers of a label map, at one point in time or two; may import base, io and lungs to decision."""
