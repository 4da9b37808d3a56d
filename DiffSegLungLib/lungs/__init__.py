"""Lungs, airways and their sides, and what they tell of the HU; may import base and io."""
