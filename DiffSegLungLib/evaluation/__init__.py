"""Proof that the method finds disease, and only disease: marks of readers, painted disease, simpler methods.

`readings` scores against marks on real CT, `read_ct` says which CT and scores what stands beside us,
`frozen` keeps the labels of an earlier state.  `painted` paints kinds of disease for `painted_ct`; `cases`
holds the older, easier lesions.  `metrics` compares label maps, `baselines` are the simpler methods that must
be beaten.  `study` runs the whole, `summary` gathers the figures, `page` and `reading_page` write them down.
"""
