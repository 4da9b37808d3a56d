"""The one table of tissues: label value, name, code, colour and Hounsfield prior.

Nothing else in the project knows a label value, a colour or a code.  Label values are a contract: an
absent tissue stays empty, it never shifts the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from DiffSegLungLib.densities import LOW_ATTENUATION_HU, LOWEST_HU

OUTSIDE = 0
HEALTHY = 1
EMPHYSEMA = 2
GROUND_GLASS = 3
FIBROSIS = 4
CONSOLIDATION = 5
CAVITY = 6
VESSEL = 7
NOT_LUNG = 255
"""In strokes alone, which correct a result: what is painted so is no lung."""
NOT_LUNG_KEY, NOT_LUNG_NAME = "not-lung", "Not lung"


@dataclass(frozen=True)
class Code:
    """A coded concept: coding scheme, value and meaning (DICOM PS3.3, section 8)."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class HounsfieldPrior:
    """Where a tissue's density lies: plausible from ``low`` to ``high`` HU, fading over ``softness`` HU."""

    low: float
    high: float
    softness: float


@dataclass(frozen=True)
class Tissue:
    """One class of the label map.

    Attributes:
        label: value in every label map this project writes.
        key: the machine's name, as in ``results.json``.
        name: the reader's name.
        code: the segmented property type.
        colour: red, green, blue, 0 to 255; told apart by people with any colour vision.
        prior: the density range, for full inspiration.
        is_disease: whether it counts as diseased lung.
    """

    label: int
    key: str
    name: str
    code: Code
    colour: tuple[int, int, int]
    prior: HounsfieldPrior
    is_disease: bool = True


TISSUES: tuple[Tissue, ...] = (
    Tissue(
        HEALTHY, "healthy", "Healthy lung", Code("SCT", "17621005", "Normal"),
        (170, 200, 190), HounsfieldPrior(LOW_ATTENUATION_HU, -740.0, 10.0), is_disease=False,
    ),
    Tissue(
        EMPHYSEMA, "emphysema", "Emphysema", Code("SCT", "87433001", "Pulmonary emphysema"),
        (0, 114, 178), HounsfieldPrior(LOWEST_HU, LOW_ATTENUATION_HU, 5.0),
    ),
    Tissue(
        GROUND_GLASS, "ground-glass", "Ground-glass opacity", Code("DCM", "112120", "Ground glass opacity"),
        (240, 228, 66), HounsfieldPrior(-740.0, -250.0, 20.0),
    ),
    Tissue(
        FIBROSIS, "fibrosis", "Fibrosis", Code("SCT", "112674009", "Fibrosis"),
        (204, 121, 167), HounsfieldPrior(-770.0, -200.0, 20.0),
    ),
    Tissue(
        CONSOLIDATION, "consolidation", "Consolidation", Code("SCT", "95436008", "Lung consolidation"),
        (213, 94, 0), HounsfieldPrior(-250.0, 200.0, 30.0),
    ),
    Tissue(
        CAVITY, "cavity", "Cavity", Code("DCM", "112062", "Abnormal lucency"),
        (0, 158, 115), HounsfieldPrior(LOWEST_HU, -850.0, 30.0),
    ),
    Tissue(
        VESSEL, "vessel", "Vessel and airway wall", Code("SCT", "59820001", "Blood vessel"),
        (120, 120, 120), HounsfieldPrior(-600.0, 400.0, 60.0), is_disease=False,
    ),
)  # fmt: skip
"""In label order.  Codes: DICOM dictionary where it has one, else SNOMED CT; cavity has no type code."""

CATEGORY = Code("SCT", "49755003", "Morphologically Altered Structure")
"""The segmented property category of every tissue; it lets a body part be named beside the type."""

REGION = Code("SCT", "39607008", "Lung")
"""The body part of every tissue."""

BY_LABEL: dict[int, Tissue] = {tissue.label: tissue for tissue in TISSUES}
BY_KEY: dict[str, Tissue] = {tissue.key: tissue for tissue in TISSUES}

REPORTED: tuple[Tissue, ...] = tuple(tissue for tissue in TISSUES if tissue.label != VESSEL)
"""What becomes a segment and a row of the table; vessels are background inside the lungs."""

DISEASES: tuple[Tissue, ...] = tuple(tissue for tissue in TISSUES if tissue.is_disease)
