"""Slicer's side of DiffSegLung: the scene, the child process, what is shown.

`exchange`, `results` and `display` know MRML; `childProcess` knows processes; `environment` knows packages;
`run` joins them.  `finetuning` makes models, `ownModels` keeps them.  Only the files named `*Section` know
Qt.  The method itself is in `DiffSegLungLib`, which knows nothing of Slicer.
"""
