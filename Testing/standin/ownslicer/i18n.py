"""`slicer.i18n` without translations: texts stay as they are written, and so does the way to mark them."""

from __future__ import annotations


def translate(context: str, text: str) -> str:
    """The text in the application's language; the bench speaks English."""
    return text


def tr(text: str) -> str:
    """The text in the application's language, for `from slicer.i18n import tr as _`.

    Raises:
        TypeError: for anything but text, as Slicer's does: translators see literals only.
    """
    if not isinstance(text, str):
        raise TypeError(f"only text can be translated, not {type(text).__name__}")
    return text
