"""What the page's buttons do: open, segment, cancel, correct, measure, save, report.

The page and this class share trame's state; its keys are those of `INITIAL`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.app.measure_command import read_manifest
from DiffSegLungLib.app.serve.choices import SEVERAL_STUDIES, choices, series_of, unique
from DiffSegLungLib.app.serve.computation import Computation
from DiffSegLungLib.app.serve.results import Found, RunFiles, facts, tissue_rows
from DiffSegLungLib.app.serve.scene import LOOK, Scene, most_of
from DiffSegLungLib.app.spreads import Spreads
from DiffSegLungLib.errors import CancelledError, DiffSegLungError, UnusableInputError
from DiffSegLungLib.export.correction import CORRECTED
from DiffSegLungLib.export.labels import write_report_of
from DiffSegLungLib.export.segmentation_file import LUNG_SEGMENTS, write_segmentation
from DiffSegLungLib.io.atomic import write_json, write_together
from DiffSegLungLib.io.cases import Case, code_of, listed
from DiffSegLungLib.io.segmentations import load_lungs
from DiffSegLungLib.io.volume import Volume, load_volume, to_input_geometry
from DiffSegLungLib.quantify.measures import measure_corrected
from DiffSegLungLib.representation.quality import QUALITIES
from DiffSegLungLib.tissues import BY_KEY, DISEASES, HEALTHY, TISSUES

if TYPE_CHECKING:
    import pandas

    from DiffSegLungLib.io.series import Series

IDLE, OPENING, SEGMENTING, SPREADING, SAVING = "", "opening", "segmenting", "spreading", "saving"
SETTLING_SECONDS = 0.3
"""After the last change of the segmentation, before it is measured: strokes come in quick succession."""
LARGEST_BRUSH_MM = 100.0
UNSAVED = "Your corrections are not saved: save them, or do the same again to drop them."

INITIAL: dict[str, Any] = {
    "ct": "", "title": "", "activity": IDLE, "fraction": 0.0, "stage": "", "error": "", "warnings": [],
    "has_ct": False, "has_result": False, "corrected": False, "rows": [], "facts": [], "files": [],
    "painted": False, "moved": [], "saved": "", "series": "", "series_list": [],
    "tool": LOOK, "tissue": DISEASES[0].key, "brush": 10.0, "window": "lung", "surfaces": True,
}  # fmt: skip


FORGOTTEN = ("has_result", "corrected", "rows", "facts", "files", "painted", "moved")
"""With a result."""


class Session:
    """One user's work on one CT at a time.

    Attributes:
        files: what may be fetched from the page, by name.
    """

    def __init__(
        self, state: Any, scans: Mapping[str, Case], folder: Path, options: Mapping[str, str]
    ) -> None:
        """Starts with no CT.

        Args:
            state: trame's.
            scans: the CT that may be opened, by name.
            folder: for this session's files.
            options: of ``segment``, without the dashes: ``device``, ``seed``, ``lungs``, ``output``.
        """
        self.files: dict[str, Path] = {}
        self.scene = Scene(self._changed)
        self._state = state
        self._scans = scans
        self._folder = folder
        self._options = dict(options)
        self._output = Path(options["output"]) if "output" in options else None
        self._volume: Volume | None = None
        self._name = ""
        self._series: Series | None = None  # of a DICOM folder of several
        self._offered: tuple[Series, ...] = ()  # which those are
        self._found: Found | None = None
        self._spreads: Spreads | None = None
        self._field: Path | None = None  # what the run of this session kept for strokes
        self._kept: np.ndarray | None = None  # the labels as they were found or saved
        self._unsaved = False
        self._measures: pandas.DataFrame | None = None
        self._computation: Computation | None = None
        self._measuring: asyncio.Task[None] | None = None
        state.update({**INITIAL, "scans": list(scans), "quality": options["quality"]})
        for key, listener in self._listeners().items():
            state.change(key)(listener)

    def _listeners(self) -> dict[str, Callable[..., None]]:
        """What happens when the page sets a key of the state."""
        return {
            "window": lambda window, **_: self.scene.set_window(str(window)),
            "surfaces": lambda surfaces, **_: self.scene.show_3d(bool(surfaces)),
            "tool": self._use_tool,
            "tissue": self._use_tool,
            "brush": self._use_tool,
        }

    def _use_tool(self, **_: Any) -> None:
        state = self._state
        with suppress(TypeError, ValueError):  # what the browser sends need not be a number
            brush = min(max(float(state.brush), 1.0), LARGEST_BRUSH_MM)
            self.scene.use_tool(str(state.tool), str(state.tissue), brush)

    async def open(self, name: str) -> None:
        """Opens one of the listed CT."""
        await self._do(OPENING, lambda: self._keeping_corrections(lambda: self._open(name)))

    async def open_series(self, uid: str) -> None:
        """Opens another series of the DICOM folder that is open."""
        if uid in {each.uid for each in self._offered}:
            await self._do(OPENING, lambda: self._keeping_corrections(lambda: self._open(self._name, uid)))

    async def segment(self) -> None:
        """Segments the CT that is open."""
        if self._volume is not None:
            await self._do(SEGMENTING, lambda: self._keeping_corrections(self._segment))

    async def spread(self) -> None:
        """Takes what was painted as evidence, and decides the whole CT anew."""
        if self._found is not None:
            await self._do(SPREADING, self._spread)

    def cancel(self) -> None:
        """Ends the segmentation that runs."""
        if self._computation:
            self._computation.cancel()

    async def save(self) -> None:
        """Writes segmentation and report, corrections included, and offers them to the page."""
        if self._found is not None:
            await self._do(SAVING, self._save)

    def close(self) -> None:
        """Ends what runs and removes this session's files."""
        self.cancel()
        if self._measuring:
            self._measuring.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    def set_visible(self, key: str, visible: bool) -> None:
        """Shows a tissue, or not."""
        self.scene.set_visible(key, visible)
        self._state.rows = [
            {**row, "visible": visible} if row["key"] == key else row for row in self._state.rows
        ]

    def _show_largest(self, labels: np.ndarray) -> None:
        """Slice views go to where most of the largest disease is, or most of the healthy lung."""
        sizes = np.bincount(labels.ravel(), minlength=TISSUES[-1].label + 1)
        tissue = max(DISEASES, key=lambda each: sizes[each.label])
        place = most_of(labels, tissue.label) or most_of(labels, HEALTHY)
        if place:
            self.scene.jump_to(place)

    def go_to(self, key: str) -> None:
        """Slice views go to where most of a tissue is; the brush takes the tissue."""
        if key not in BY_KEY:
            return
        self._state.tissue = key
        place = most_of(self.scene.labels(), BY_KEY[key].label) if self.scene.has_segmentation else None
        if place:
            self.scene.jump_to(place)

    async def _do(self, activity: str, work: Callable[[], Awaitable[None]]) -> None:
        """One thing at a time; an error is shown and leaves everything as it was."""
        state = self._state
        if state.activity != IDLE:
            return
        with state:
            state.update({"activity": activity, "error": "", "fraction": 0.0, "stage": ""})
        try:
            await work()
        except CancelledError:
            pass  # as the user wished
        except DiffSegLungError as error:
            state.error = str(error)
        except Exception as error:  # the page must not be left waiting
            state.error = f"{type(error).__name__}: {error}. The fault is DiffSegLung's."
        finally:
            with state:
                series = self._series.uid if self._series else ""
                state.update({"activity": IDLE, "ct": self._name, "series": series})  # as it is open

    async def _keeping_corrections(self, work: Callable[[], Awaitable[None]]) -> None:
        """Work that drops the segmentation: where corrections are unsaved, only the second click does it."""
        if self._unsaved:
            self._unsaved = False
            raise UnusableInputError(UNSAVED)
        await work()

    async def _open(self, name: str, uid: str | None = None) -> None:
        case = listed(self._scans, name)
        try:
            volume = await asyncio.to_thread(load_volume, case.source, uid, case.name)
        except UnusableInputError:
            if uid is not None or not await self._close_and_offer(case):
                raise
            return
        self._forget_result()
        self.scene.show_ct(volume)
        self._volume, self._name = volume, name
        self._offer(unique(volume.series), volume.series_uid)
        self._state.update({"ct": name, "title": name, "has_ct": True, "window": "lung"})
        self._state.warnings = list(volume.warnings)
        saved = RunFiles.of(self._output, self._result_name()) if self._output else None
        if saved and saved.fit(volume):
            await self._show_result(saved)

    async def _close_and_offer(self, case: Case) -> bool:
        """Lists the series of a DICOM folder of which none could be taken unasked; what is open is closed.

        Returns:
            Whether that is all: it holds several studies.  Otherwise there is an error to be said.
        """
        series = await asyncio.to_thread(series_of, case.source)
        if len(series) < 2:
            return False
        self._forget_result()
        self.scene.clear()
        self._volume, self._name = None, case.label
        self._offer(series, "")
        studies = len({each.study for each in series})
        said = [SEVERAL_STUDIES.format(count=studies)] if studies > 1 else []
        self._state.update({"title": case.label, "has_ct": False, "warnings": said})
        return studies > 1

    def _offer(self, series: Sequence[Series], taken: str) -> None:
        """Lists the series of a DICOM folder that holds several, and which of them is open."""
        self._offered = tuple(series) if len(series) > 1 else ()
        self._series = next((each for each in self._offered if each.uid == taken), None)
        listed_so = choices(self._offered) if self._offered else []
        self._state.update({"series": self._series.uid if self._series else "", "series_list": listed_so})

    def _result_name(self) -> str:
        """The case's name, and which of its series it is."""
        name = listed(self._scans, self._name).name
        if self._series is None:
            return name
        numbers = {each.number for each in self._offered if each.uid != self._series.uid}
        number = "" if self._series.number in numbers else self._series.number
        return f"{name}-series-{number or code_of(self._series.uid)}"

    def _forget_result(self) -> None:
        if self._measuring:
            self._measuring.cancel()
        self._found, self._measures, self._unsaved, self.files = None, None, False, {}
        self._spreads, self._field = None, None
        self._state.update({key: INITIAL[key] for key in FORGOTTEN})
        self._state.update({"tool": LOOK, "saved": ""})

    async def _segment(self) -> None:
        run = self._folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        files = RunFiles.of(run, "ct")
        self._computation = Computation(self._arguments(files))
        try:
            await self._computation.run(self._show_progress)
        finally:
            self._computation = None
        await self._show_result(files)
        self._field = files.field

    async def _spread(self) -> None:
        """Without what the run kept, as of a result that was opened, the network reads the CT first."""
        volume, found, spreads = self._volume, self._found, self._spreads
        assert volume is not None and found is not None and spreads is not None
        if spreads.field is None:
            path = self._field or await self._read_again(found)
            await asyncio.to_thread(spreads.load, path, volume)
        done = await asyncio.to_thread(spreads.spread, self.scene.labels(), volume)
        self.scene.put(done.after)
        if self._measuring:
            self._measuring.cancel()
        await self._measure()

    async def _read_again(self, found: Found) -> Path:
        """What strokes need, of a result whose run kept nothing; in a folder of its own."""
        folder = self._folder / "again"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files, volume = RunFiles.of(folder, "ct"), self._volume
        assert volume is not None
        lungs = to_input_geometry(found.sides, volume)
        write_segmentation(files.lungs.with_name("given.seg.nrrd"), lungs, LUNG_SEGMENTS)
        self._computation = Computation(self._arguments(files, files.lungs.with_name("given.seg.nrrd")))
        try:
            await self._computation.run(self._show_progress)
        finally:
            self._computation = None
        self._field = files.field
        return files.field

    def _arguments(self, run: RunFiles, lungs: Path | None = None) -> list[str]:
        quality = self._state.quality if self._state.quality in QUALITIES else self._options["quality"]
        case = listed(self._scans, self._name)
        arguments = ["segment", str(case.source), "--output", str(run.segmentation), "--name", case.name]
        arguments += ["--series", self._series.uid] if self._series else []
        arguments += ["--save-lungs", str(run.lungs), "--manifest", str(run.manifest)]
        arguments += ["--save-field", str(run.field)]
        arguments += ["--quality", quality, "--progress", "json"]
        options = {**self._options, "lungs": str(lungs)} if lungs else self._options
        for option in ("device", "seed", "model", "lungs"):
            if option in options:
                arguments += [f"--{option}", options[option]]
        return arguments

    def _show_progress(self, stage: str, fraction: float, message: str) -> None:
        with self._state as state:
            state.update(
                {"stage": message or stage, "fraction": round(100 * min(max(fraction, 0.0), 1.0), 1)}
            )

    async def _show_result(self, run: RunFiles) -> None:
        assert self._volume is not None
        sides, _ = await asyncio.to_thread(load_lungs, run.lungs, self._volume)
        manifest = read_manifest(run.manifest)
        self._forget_result()
        self.scene.show_segmentation(run.segmentation)
        self._found = Found(self.scene.labels(), sides, manifest)
        found = self._found
        self._spreads, self._kept = Spreads(found.labels, found.sides, manifest), found.labels
        self._show_largest(self._found.labels)
        await self._measure()

    def _changed(self, *_: Any) -> None:
        """Measures once the changes have settled."""
        if self._found is None:
            return
        if self._measuring:
            self._measuring.cancel()
        self._measuring = asyncio.get_running_loop().create_task(self._measure_later())

    async def _measure_later(self) -> None:
        await asyncio.sleep(SETTLING_SECONDS)
        if self._found is not None:
            await self._measure()

    async def _measure(self) -> None:
        """Brings table, warnings and facts up to the tissues as they are now."""
        volume, found = self._volume, self._found
        assert volume is not None and found is not None
        labels = self.scene.labels()
        measures = await asyncio.to_thread(
            measure_corrected, labels, found.sides, volume.hu, volume.spacing, None, volume.voxel_ml
        )
        if found is not self._found:  # another CT was opened meanwhile
            return
        self._measures = measures
        self._unsaved = self._kept is not None and not np.array_equal(labels, self._kept)
        corrected = not np.array_equal(labels, found.labels)
        with self._state as state:
            state.update({"has_result": True, "corrected": corrected})
            state.warnings = self._warnings(labels, corrected)
            if self._spreads:
                state.painted = bool(self._spreads.strokes(labels).any())
                state.moved = self._spreads.moved(labels)
            hidden = {row["key"] for row in state.rows if not row["visible"]}
            state.rows, state.facts = tissue_rows(measures, hidden), facts(measures)

    def _warnings(self, labels: np.ndarray, corrected: bool) -> list[str]:
        said = self._spreads.manifest_of(labels).get("warnings", []) if self._spreads else []
        return list(dict.fromkeys([*([CORRECTED] if corrected else []), *map(str, said)]))

    async def _save(self) -> None:
        volume, found = self._volume, self._found
        assert volume is not None and found is not None
        if self._measuring:  # a stroke may not be in the numbers yet
            self._measuring.cancel()
        await self._measure()
        labels, image, measures = self.scene.labels(), self.scene.label_image(), self._measures
        run_manifest = self._spreads.manifest_of(labels) if self._spreads else found.manifest
        manifest = {**run_manifest, "warnings": self._warnings(labels, self._state.corrected)}
        target, name = self._output or self._folder / "saved", self._result_name()
        run, report = RunFiles.of(target, name), target / f"{name}_report"

        def write() -> None:
            assert measures is not None
            write_report_of(report, volume, labels, measures, manifest)
            lungs = to_input_geometry(found.sides, volume)
            write_together(
                {
                    run.manifest: partial(write_json, content=manifest),
                    run.lungs: partial(write_segmentation, labels=lungs, segments=LUNG_SEGMENTS),
                    run.segmentation: partial(write_segmentation, labels=image),
                }
            )

        await asyncio.to_thread(write)
        self._kept, self._unsaved = labels, False
        paths = [run.segmentation, *(report / each for each in ("report.html", "report.pdf", "measures.csv"))]
        self.files = {path.name: path for path in paths}
        self._state.update({"files": list(self.files), "saved": str(target) if self._output else ""})
