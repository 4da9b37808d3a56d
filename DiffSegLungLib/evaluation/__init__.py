"""Proof that the method finds disease, and only disease: lesions of known truth, borrowed truth, baselines.

`painted` paints disease of each kind into real lungs, whole cases of known truth, and scores them; `cases`
places single lesions, `metrics` compares label maps, `baselines` are the simpler methods that must be beaten,
`study` runs the whole and `summary` writes it down.
"""
