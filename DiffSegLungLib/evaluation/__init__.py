"""Proof that the method finds disease, and only disease: lesions of known truth, borrowed truth, baselines.

`cases` places lesions of known truth into real lungs, `metrics` compares label maps, `baselines` are the
simpler methods that must be beaten, `study` runs the whole and `summary` writes it down.
"""
