"""The library's words in the user's language: it speaks English, also from a process of its own."""

from __future__ import annotations

import functools
import re

from slicer.i18n import translate

from .textsOfLibrary import CONTEXT, TEXTS

FIELD = re.compile(r"\{(\d+)\}")


def said(text: str) -> str:
    """A text of the library in the language of the application; as it is where nobody has translated it."""
    for pattern, template in _templates():
        if match := pattern.fullmatch(text):
            return _inTheUsersLanguage(template).format(*match.groups())
    return text


def _inTheUsersLanguage(template: str) -> str:
    translated = translate(CONTEXT, template)
    same = sorted(FIELD.findall(translated)) == sorted(FIELD.findall(template))
    return translated if same else template  # a translator's slip must not become an error


@functools.cache
def _templates() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Each text as a pattern; those with most words of their own first, since a field takes any text."""
    ordered = sorted(TEXTS, key=lambda template: len(FIELD.sub("", template)), reverse=True)
    return tuple((_pattern(template), template) for template in ordered)


def _pattern(template: str) -> re.Pattern[str]:
    parts = FIELD.split(template)[::2]
    literals = (re.escape(part.replace("{{", "{").replace("}}", "}")) for part in parts)
    return re.compile("(.+?)".join(literals), re.DOTALL)
