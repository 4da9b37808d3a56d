"""The page: four views, and a panel with everything else.  What the buttons do is in `session`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from DiffSegLungLib.app.serve.scene import ERASE, LOOK, PAINT, WINDOWS
from DiffSegLungLib.app.serve.session import LARGEST_BRUSH_MM, Session
from DiffSegLungLib.export.report import NOT_CLINICAL
from DiffSegLungLib.representation.quality import QUALITIES
from DiffSegLungLib.tissues import REPORTED

PANEL_WIDTH = 430
EDGES = {"Axial": "RLAP", "Coronal": "RLSI", "Sagittal": "APSI"}
"""What is at the left, right, upper and lower edge of each view, as in Slicer."""
PLACES = ("left:6px;top:48%", "right:6px;top:48%", "left:50%;top:4px", "left:50%;bottom:30px")
CELLS = (("ml", "ml"), ("percent", "%"), ("right", "R %"), ("left", "L %"))


def build_page(server: Any, session: Session) -> None:
    """Makes views and panel.

    Args:
        server: trame's.
        session: what the buttons do.
    """
    from trame.ui.vuetify3 import VAppLayout
    from trame.widgets import html
    from trame.widgets import vuetify3 as v3

    layout_manager = _views(server, session)
    server.state.trame__title = "DiffSegLung"
    with VAppLayout(server) as layout:
        layout.root.theme = "dark"
        with (
            v3.VNavigationDrawer(permanent=True, width=PANEL_WIDTH, location="left"),
            html.Div(classes="pa-3"),
        ):
            html.Div("DiffSegLung", classes="text-h6")
            html.Div(NOT_CLINICAL, id="notice", classes="text-caption text-warning mb-2")
            _input(session, v3, html)
            _messages(v3, html)
            _table(session, v3, html)
            _correction(session, v3, html)
            _saving(session, v3, html)
        with v3.VMain(), html.Div(id="views", style="display:flex;height:100vh;width:100%"):
            layout_manager.initialize_layout_grid(layout)
    layout_manager.set_layout("four")
    session.scene.prepare_views()


def _views(server: Any, session: Session) -> Any:
    """Axial and 3D above, coronal and sagittal below, as radiologists know them from Slicer."""
    from trame_slicer.core import LayoutManager
    from trame_slicer.rca_view import register_rca_factories
    from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition

    app = session.scene.app
    register_rca_factories(app.view_manager, server, slice_view_ui_f=_slice_view)
    manager = LayoutManager(app.scene, app.view_manager, server)
    above = [ViewLayoutDefinition.axial_view(), ViewLayoutDefinition.threed_view()]
    below = [ViewLayoutDefinition.coronal_view(), ViewLayoutDefinition.sagittal_view()]
    rows = [Layout(LayoutDirection.Horizontal, above), Layout(LayoutDirection.Horizontal, below)]
    manager.register_layout("four", Layout(LayoutDirection.Vertical, rows))
    return manager


def _slice_view(server: Any, view_id: str, view: Any) -> None:
    """Slider and buttons of a slice view, and the patient's directions at its edges."""
    from trame.widgets import html
    from trame_slicer.app.ui import create_vertical_slice_view_gutter_ui

    create_vertical_slice_view_gutter_ui(server, view_id, view)
    look = "position:absolute;color:#ffd54f;font:600 13px sans-serif;pointer-events:none"
    look += ";text-shadow:0 0 3px #000,0 0 3px #000"  # read over bone, too
    for letter, place in zip(EDGES.get(view.get_orientation(), ""), PLACES, strict=False):
        html.Div(letter, style=f"{look};{place}")


def _started(work: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A click that starts long work and returns at once; the page stays alive."""
    running: set[asyncio.Task[None]] = set()

    def start(*arguments: Any) -> None:
        task = asyncio.get_running_loop().create_task(work(*arguments))
        running.add(task)  # the loop alone would let it be collected
        task.add_done_callback(running.discard)

    return start


def _input(session: Session, v3: Any, html: Any) -> None:
    """Choosing the CT, segmenting it, cancelling."""
    v3.VSelect(
        id="ct", v_model=("ct",), items=("scans",), label="CT", density="compact", hide_details=True,
        disabled=("activity !== ''",), update_modelValue=(_started(session.open), "[$event]"), classes="mb-2",
    )  # fmt: skip
    v3.VSelect(
        id="series", v_if="series_list.length", v_model=("series",), items=("series_list",), label="Series",
        density="compact", hide_details=True, disabled=("activity !== ''",), classes="mb-2",
        update_modelValue=(_started(session.open_series), "[$event]"),
    )  # fmt: skip
    with html.Div(classes="d-flex ga-2 mb-2"):
        v3.VSelect(
            v_model=("quality",), items=("qualities", list(QUALITIES)), label="Quality", density="compact",
            hide_details=True, disabled=("activity !== ''",), style="max-width:150px",
        )  # fmt: skip
        v3.VBtn(
            "Segment", id="segment", color="primary", v_if="activity !== 'segmenting'", classes="flex-grow-1",
            disabled=("!has_ct || activity !== ''",), click=_started(session.segment),
        )  # fmt: skip
        v3.VBtn(
            "Cancel", id="cancel", color="error", v_else=True, classes="flex-grow-1", click=session.cancel
        )
    with html.Div(v_if="activity !== ''", classes="mb-2"):
        v3.VProgressLinear(id="progress", model_value=("fraction",), height=8, indeterminate=("!fraction",))
        html.Div("{{ stage || activity }} {{ fraction ? Math.round(fraction) + ' %' : '' }}", id="stage")


def _messages(v3: Any, html: Any) -> None:
    """Errors and warnings, before the numbers."""
    v3.VAlert("{{ error }}", id="error", v_if="error", type="error", density="compact", classes="mb-2")
    with html.Div(id="warnings", v_if="warnings.length", classes="mb-2"), v3.VAlert(
        v_for="sentence in warnings", key="sentence", type="warning", density="compact", variant="tonal",
        classes="mb-1 text-caption",
    ):  # fmt: skip
        html.Span("{{ sentence }}")


def _table(session: Session, v3: Any, html: Any) -> None:
    """Tissues with colour, visibility and measures; a click on a name goes to where most of it is."""
    with html.Div(v_if="has_result"):
        with v3.VTable(id="tissues", density="compact", classes="mb-1 text-caption"):
            with html.Thead(), html.Tr():
                html.Th("")
                html.Th("Tissue")
                for key, title in CELLS:
                    html.Th(title, classes="text-right", v_if=f"rows.some((row) => '{key}' in row)")
            with html.Tbody(), html.Tr(v_for="row in rows", key="row.key", id=("'row-' + row.key",)):
                with html.Td(classes="px-1", style="height:30px"):
                    v3.VBtn(
                        icon=("row.visible ? 'mdi-eye' : 'mdi-eye-off'",), size="x-small", variant="text",
                        click=(session.set_visible, "[row.key, !row.visible]"), id=("'eye-' + row.key",),
                    )  # fmt: skip
                name_style = {"classes": "px-1 text-no-wrap", "style": "cursor:pointer"}
                with html.Td(click=(session.go_to, "[row.key]"), **name_style):
                    html.Span(
                        style=(
                            "`display:inline-block;width:12px;height:12px;margin-right:6px;background:${row.colour}`",
                        )
                    )
                    html.Span(" {{ row.name }}")
                for key, _ in CELLS:
                    html.Td(
                        f"{{{{ row.{key} }}}}", classes=f"text-right px-1 cell-{key}", v_if=f"'{key}' in row"
                    )
        html.Div("% of parenchyma: lung without vessels and airway walls.", classes="text-caption mb-1")
        with (
            html.Div(id="facts", classes="text-caption mb-2"),
            html.Div(v_for="fact in facts", key="fact.key", classes="d-flex justify-space-between"),
        ):
            html.Span("{{ fact.name }}")
            html.Span("{{ fact.value }} {{ fact.unit }}", id=("'fact-' + fact.key",))


def _correction(session: Session, v3: Any, html: Any) -> None:
    """Window, surfaces, brush."""
    with html.Div(v_if="has_ct", classes="d-flex ga-2 align-center mb-1"):
        with v3.VBtnToggle(v_model=("window",), density="compact", mandatory=True):
            for window in WINDOWS:
                v3.VBtn(window, value=window, size="small", id=f"window-{window}")
        v3.VSwitch(
            v_model=("surfaces",), label="3D", density="compact", hide_details=True, id="surfaces",
            disabled=("tool !== 'look'",), v_if="has_result",
        )  # fmt: skip
    with html.Div(v_if="has_result", classes="mb-2"):
        with html.Div(classes="d-flex ga-2 align-center mb-1"):
            with v3.VBtnToggle(v_model=("tool",), density="compact", mandatory=True):
                for tool, icon in ((LOOK, "mdi-cursor-default"), (PAINT, "mdi-brush"), (ERASE, "mdi-eraser")):
                    v3.VBtn(tool, value=tool, size="small", prepend_icon=icon, id=f"tool-{tool}")
            v3.VBtn(icon="mdi-undo", size="x-small", click=session.scene.undo, id="undo", variant="text")
            v3.VBtn(icon="mdi-redo", size="x-small", click=session.scene.redo, id="redo", variant="text")
            v3.VBtn(
                "Spread", id="spread", size="small", click=_started(session.spread), color="primary",
                disabled=("activity !== '' || !painted",), variant="tonal",
            )  # fmt: skip
        with html.Div(v_if="moved.length", id="moved", classes="text-caption mb-1"):
            html.Div("Your strokes moved:")
            html.Div("{{ line }}", v_for="line in moved", key="line")
        with html.Div(v_if="tool !== 'look'"):
            names = [{"title": tissue.name, "value": tissue.key} for tissue in REPORTED]
            v3.VSelect(
                v_model=("tissue",), items=("tissues", names), label="Tissue", density="compact", id="tissue"
            )
            v3.VSlider(
                v_model=("brush",), min=2, max=LARGEST_BRUSH_MM, step=1, density="compact", hide_details=True,
                thumb_label=True, id="brush",
            )  # fmt: skip
            html.Div(
                "Brush {{ brush }} mm; 3D rests meanwhile. Erased lung counts as vessel, "
                "what is painted outside as lung. Spread takes strokes as evidence for the whole CT.",
                classes="text-caption",
            )


def _saving(session: Session, v3: Any, html: Any) -> None:
    """Saving, and the files that were."""
    with html.Div(v_if="has_result"):
        v3.VBtn(
            "Save segmentation and report", id="save", block=True, click=_started(session.save),
            disabled=("activity !== ''",), classes="mb-1",
        )  # fmt: skip
        html.Div("Written to {{ saved }}", v_if="saved", id="saved", classes="text-caption")
        html.A(
            "{{ file }}", v_for="file in files", key="file", href=("'/files/' + encodeURIComponent(file)",),
            target="_blank", classes="d-block text-body-2 text-primary file",
        )  # fmt: skip
