"""Makes PySide6 behave as PythonQt does in Slicer: what PythonQt refuses is refused here too.

- `rules`: properties are attributes, C++ objects take no new attributes, `connect("signal(type)", slot)`.
- `uiloader`: the `.ui` loader, strict about unknown widget classes, properties and connections.
- `dialogs`: modal dialogs that a test answers, web pages that are recorded instead of opened.

The module `qt` puts them together.
"""
