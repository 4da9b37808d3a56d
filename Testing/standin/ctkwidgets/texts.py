"""Texts and messages."""

from __future__ import annotations

import qt
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, stored


@standinWidget
class ctkFittedTextBrowser(Setters, qt.QTextBrowser):
    """A text browser as high as its text, which may fold."""

    collapsed = stored("collapsed", bool, True)
    collapsible = stored("collapsible", bool, False)
    collapsibleText = stored("collapsibleText", str, "")
    showMoreText = stored("showMoreText", str, "More...")
    showLessText = stored("showLessText", str, "Show less")


@standinWidget
class ctkSearchBox(Setters, qt.QLineEdit):
    """A line to type a search in."""

    showSearchIcon = stored("showSearchIcon", bool, True)
    alwaysShowClearIcon = stored("alwaysShowClearIcon", bool, False)
    defaultText = stored("defaultText", str, "")


@standinWidget
class ctkMessageBox(Setters, qt.QMessageBox):
    """A message box that can remember its answer: "don't show this again"."""

    dontShowAgain = stored("dontShowAgain", bool, False)
    dontShowAgainVisible = stored("dontShowAgainVisible", bool, False)
    dontShowAgainSettingsKey = stored("dontShowAgainSettingsKey", str, "")
