"""The page in the browser: open a CT, segment, correct, measure, save; for machines without a desktop.

Views and segmentation are Slicer's own (MRML, through slicer-core and trame-slicer).  This package is the
only place of the library that imports them, and only when the command runs: the library stays plain Python.

``command`` checks the request and runs the server; ``choices`` offers CT and series; ``access`` says who may
come in; ``session`` is what the buttons do; ``results`` says what a run left; ``scene`` holds the MRML scene;
``page`` draws; ``computation`` runs ``segment`` in a child process.
"""

from __future__ import annotations

from DiffSegLungLib.app.serve.command import ServeRequest, serve

__all__ = ["ServeRequest", "serve"]
