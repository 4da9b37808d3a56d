"""Hounsfield units that mean one thing wherever they stand; what a rule sets stands where the rule is."""

from __future__ import annotations

AIR_HU = -1000.0
"""Of air, by the scale's definition; water has 0."""
LOWEST_HU, HIGHEST_HU = -1024.0, 3071.0
"""What a CT of 12 bits can hold; what lies below is padding, above it metal."""
LOW_ATTENUATION_HU = -950.0
"""Strictly below: low attenuation (LAA-950), as of emphysema (Gevenois 1996)."""
WINDOW_HU = (-1000.0, 400.0)
"""The window in which networks and radiomics see the lungs: from air to dense soft tissue and contrast."""
LUNG_LEVEL_HU, LUNG_WIDTH_HU = -600.0, 1500.0
"""Middle and width of the window in which radiologists look at lungs."""
