"""Modal dialogs answered by the test, and web pages recorded instead of opened.

A modal dialog would stop a test for ever. So the test says beforehand what the user will answer:

    answers.give(QFileDialog.getOpenFileName, "/data/ct.nrrd")
    answers.give(QMessageBox, QMessageBox.Yes)

A dialog without an answer is an error in the test, which names the dialog and its text.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .rules import QtGui, QtWidgets

FILE_FUNCTIONS = ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory")
INPUT_FUNCTIONS = ("getText", "getInt", "getDouble", "getItem")
MESSAGE_FUNCTIONS = ("question", "information", "warning", "critical")

openedUrls: list[str] = []
"""What the module asked to open in the browser or the file manager."""


class Answers:
    """What the user will answer to the next dialogs, kind by kind, first in, first out."""

    def __init__(self) -> None:
        self.waiting: dict[str, deque[Any]] = {}
        self.shown: list[tuple[str, str]] = []

    def give(self, dialog: Any, answer: Any) -> None:
        """Answer the next dialog of that kind: a static function or class of Qt, or its name."""
        self.waiting.setdefault(self._kind(dialog), deque()).append(answer)

    def take(self, kind: str, text: str) -> Any:
        """The answer to a dialog that the module shows now.

        Raises:
            RuntimeError: if the test gave none.
        """
        self.shown.append((kind, text))
        if not self.waiting.get(kind):
            raise RuntimeError(f"A {kind} dialog is shown and the test gave no answer to it: {text}")
        return self.waiting[kind].popleft()

    def unused(self) -> list[tuple[str, Any]]:
        """The answers that nothing has asked for yet."""
        return [(kind, answer) for kind, waiting in self.waiting.items() for answer in waiting]

    def clear(self) -> None:
        self.waiting.clear()
        self.shown.clear()

    @staticmethod
    def _kind(dialog: Any) -> str:
        name = dialog if isinstance(dialog, str) else dialog.__name__
        return "QMessageBox" if name in (*MESSAGE_FUNCTIONS, "ctkMessageBox") else name


answers = Answers()


def describe(arguments: tuple[Any, ...]) -> str:
    return " | ".join(each for each in arguments if isinstance(each, str))


def answeredFunction(kind: str, name: str) -> Any:
    def ask(*arguments: Any, **_options: Any) -> Any:
        return answers.take(kind, describe(arguments))

    ask.__name__ = name
    return staticmethod(ask)


def runMessageBox(box: Any) -> Any:
    """Stands for `QMessageBox.exec_()`: the answer is a standard button, or the text of a button."""
    answer = answers.take("QMessageBox", f"{box.windowTitle} | {box.text}")
    buttons = {each.text.replace("&", ""): each for each in box.buttons()}
    if not isinstance(answer, str):
        return answer
    if answer not in buttons:
        raise RuntimeError(f"The message box has no button {answer!r}, only {sorted(buttons)}")
    buttons[answer].click()
    return box.standardButton(buttons[answer])


def openUrl(url: Any) -> bool:
    openedUrls.append(url.toString() if hasattr(url, "toString") else str(url))
    return True


def install() -> None:
    """Put the answers in place of Qt's modal dialogs, for the rest of the process."""
    for owner, names in ((QtWidgets.QFileDialog, FILE_FUNCTIONS), (QtWidgets.QInputDialog, INPUT_FUNCTIONS)):
        for name in names:
            setattr(owner, name, answeredFunction(name, name))
    for name in MESSAGE_FUNCTIONS:
        setattr(QtWidgets.QMessageBox, name, answeredFunction("QMessageBox", name))
    QtWidgets.QMessageBox.exec = QtWidgets.QMessageBox.exec_ = runMessageBox
    QtGui.QDesktopServices.openUrl = staticmethod(openUrl)
