"""Proof that the method finds disease, and only disease: marks of readers, painted disease, simpler methods.

`readings` scores against marks on real CT, `read_ct` says which CT and scores what stands beside us,
`frozen` keeps the labels of an earlier state.  `painted` paints disease of each kind into real lungs, whole
cases of known truth, which `painted_ct` runs; `cases` places the older, easier lesions.  `metrics` compares
label maps, `baselines` are the simpler methods that must be beaten.  `study` runs the whole, `summary`
gathers the figures, `page` and `reading_page` write them down.  May import every room but the app.
"""
