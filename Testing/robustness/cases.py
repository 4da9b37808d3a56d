"""The table of the battery: what a hospital may send, and what must come of it.

A new case is one entry: its name, how its input is made (``scans`` has the makers), and either what the
refusal says (``refused``) or what must hold of the result (``taken``).
"""

from __future__ import annotations

import gzip
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from Testing.robustness.battery import (
    MISSING,
    Case,
    between,
    like_the_plain_chest,
    refused,
    same_labels,
    silent,
    taken,
    warns,
)
from Testing.robustness.reported import REPORTED
from Testing.robustness.scans import (
    Maker,
    abdomen,
    adult,
    body,
    cast,
    changed,
    chest,
    consolidated,
    contrast,
    cut,
    deflated,
    dicom,
    distended_abdomen,
    edited,
    effusion,
    file,
    filled,
    finer,
    head,
    image_of,
    large_body,
    metal,
    metal_through_the_wall,
    nothing_but,
    phantom,
    pneumothorax,
    prone,
    replaced,
    resonance,
    round_field,
    save,
    scrambled,
    sheared,
    turned,
    with_values,
    without_right_lung,
)

NO_LUNGS = r"no lungs were found in the CT .*--lungs"
NO_CT = r"cannot be read; it is damaged or not NRRD, NIfTI, MetaImage or a DICOM folder; export the CT again"
NOT_READABLE = "damaged|cut off|cannot be read|no DICOM images"
FORMATS = (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz")
FLIPS = [(x, y, z) for x in (False, True) for y in (False, True) for z in (False, True)]
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Root without the right to read and write everything."""


# --- inputs that are no image of a chest -----------------------------------------------------------------


def written(name: str, content: bytes) -> Maker:
    """A file of these bytes."""

    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def missing(name: str) -> Maker:
    """A path where nothing is."""
    return lambda folder: folder / name


def empty_folder(folder: Path) -> Path:
    (folder / "empty" / "in it").mkdir(parents=True)
    return folder / "empty"


def png_stack(folder: Path) -> Path:
    (folder / "stack").mkdir()
    for index, plane in enumerate(sitk.GetArrayFromImage(chest())[:10]):
        picture = sitk.GetImageFromArray(np.clip((plane + 1000) / 8, 0, 255).astype(np.uint8))
        sitk.WriteImage(picture, str(folder / "stack" / f"{index:03d}.png"))
    return folder / "stack"


def one_png(folder: Path) -> Path:
    return png_stack(folder) / "003.png"


def zipped(folder: Path) -> Path:
    ct = save(chest(), folder / "inner.nrrd")
    with zipfile.ZipFile(folder / "ct.nrrd", "w") as archive:
        archive.write(ct, "../../escape.nrrd")
    ct.unlink()
    return folder / "ct.nrrd"


def without_its_pixels(name: str) -> Maker:
    """A header whose pixel file is gone."""

    def write(folder: Path) -> Path:
        path = save(chest(), folder / name)
        for other in [each for each in folder.iterdir() if each.is_file() and each != path]:
            other.unlink()
        return path

    return write


def pixels_cut(name: str) -> Maker:
    """A header whose pixel file is cut off."""

    def write(folder: Path) -> Path:
        path = save(chest(), folder / name)
        for other in [each for each in folder.iterdir() if each.is_file() and each != path]:
            other.write_bytes(cut(other.read_bytes()))
        return path

    return write


# --- bombs: small files that say they are huge -----------------------------------------------------------


def nifti_header(size: tuple[int, int, int]) -> bytes:
    """352 bytes: int16, 2.5 mm, pixels right behind."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *size, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, 2.5, 2.5, 2.5, 1, 1, 1, 1)
    struct.pack_into("<2f", header, 108, 352, 1)
    header[344:348] = b"n+1\0"
    return bytes(header)


def nrrd_header(size: tuple[int, int, int], encoding: str) -> bytes:
    sizes = " ".join(map(str, size))
    fields = ("type: int16", "dimension: 3", f"sizes: {sizes}", "endian: little", f"encoding: {encoding}")
    return "\n".join(["NRRD0004", *fields, "\n"]).encode()


def zeros(megabytes: int) -> bytes:
    """Zeros, packed by gzip a thousand to one."""
    block = gzip.compress(bytes(1 << 20), 9)
    return block * megabytes


def nifti_bomb(folder: Path) -> Path:
    """A header of a small CT before four gigabytes of zeros."""
    hu = phantom().hu.astype("<i2")
    content = gzip.compress(nifti_header(hu.shape[::-1]) + hu.tobytes()) + zeros(4096)  # type: ignore[arg-type]
    (folder / "ct.nii.gz").write_bytes(content)
    return folder / "ct.nii.gz"


def with_zeros_behind(content: bytes) -> bytes:
    """A deflated DICOM file with one gigabyte of zeros more in what was deflated."""
    data = 144 + int.from_bytes(
        content[140:144], "little"
    )  # behind the meta information, which is not packed
    start = zlib.decompress(content[data:], -zlib.MAX_WBITS)
    return content[:data] + _packed(start) + 1024 * _packed(bytes(1 << 20)) + b"\3\0"


def _packed(content: bytes) -> bytes:
    """A piece of a deflated stream that others may follow."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)


# --- folders and links -----------------------------------------------------------------------------------


def one_file_of(make: Maker) -> Maker:
    """The first file of a DICOM folder."""
    return lambda folder: sorted(make(folder).iterdir())[0]


def nested(folder: Path) -> Path:
    made = dicom()(folder)
    (folder / "a" / "b").mkdir(parents=True)
    shutil.move(made, folder / "a" / "b" / "c")
    (folder / "a" / "notes.txt").write_text("not an image")
    return folder / "a"


def link(make: Maker, name: str) -> Maker:
    def write(folder: Path) -> Path:
        (folder / name).symlink_to(make(folder))
        return folder / name

    return write


def link_to_itself(folder: Path) -> Path:
    (folder / "ct.nrrd").symlink_to(folder / "ct.nrrd")
    return folder / "ct.nrrd"


def folder_in_itself(folder: Path) -> Path:
    made = dicom()(folder)
    (made / "again").symlink_to(made)
    return made


def forbidden(make: Maker) -> Maker:
    def write(folder: Path) -> Path:
        path = make(folder)
        for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
            each.chmod(0o000 if each.is_file() else 0o500)
        return path

    return write


def locked_output(folder: Path) -> Path:
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o500)
    return save(chest(), folder / "ct.nrrd")


def folder_as_output(folder: Path) -> Path:
    (folder / "folder.nrrd").mkdir()
    return save(chest(), folder / "ct.nrrd")


def deep(folder: Path) -> Path:
    """A path of more than 900 characters, near what ITK can open."""
    return save(chest(), folder.joinpath(*["a folder with a long name " + "x" * 60] * 10) / "ct.nrrd")


# --- masks -----------------------------------------------------------------------------------------------


def with_mask(make: Callable[[np.ndarray], sitk.Image], ct: Callable[[], sitk.Image] = chest) -> Maker:
    """The CT, and ``mask.nrrd`` made from the phantom's lungs (uint8: 1 right, 2 left)."""

    def write(folder: Path) -> Path:
        save(make(phantom().sides), folder / "mask.nrrd")
        return save(ct(), folder / "ct.nrrd")

    return write


def as_mask(array: np.ndarray) -> sitk.Image:
    return sitk.Cast(image_of(array), sitk.sitkUInt8)


def coarse_mask(sides: np.ndarray) -> sitk.Image:
    """On voxels of 4 mm, turned, and cropped."""
    size = [int(side * 2.5 / 4) for side in sides.shape[::-1]]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing((4.0, 4.0, 4.0))
    grid.SetOrigin(image_of(sides).GetOrigin())
    near = sitk.Resample(as_mask(sides), grid, sitk.Transform(), sitk.sitkNearestNeighbor)
    return sitk.DICOMOrient(near, "RAS")


def elsewhere(sides: np.ndarray) -> sitk.Image:
    mask = as_mask(sides)
    mask.SetOrigin((5000.0, 0.0, 0.0))
    return mask


def one_voxel(sides: np.ndarray) -> sitk.Image:
    single = np.zeros_like(sides)
    single[tuple(np.argwhere(sides == 1)[5000])] = 1
    return as_mask(single)


MASK = ("--lungs", "{folder}/mask.nrrd")
PLAIN = taken("the plain chest", file(chest), like_the_plain_chest(0.0, 0.0), between("lung_ml", 500, 700))

CASES: list[Case] = [
    PLAIN,
    # no lungs, or not both
    refused("a head", file(head), NO_LUNGS),
    refused("an abdomen", file(abdomen), NO_LUNGS),
    refused("an abdomen full of gas", file(distended_abdomen), "gas alone|no lungs were found"),
    refused("a trunk without any gas", file(lambda: image_of(body())), NO_LUNGS),
    refused("air alone", file(lambda: nothing_but(-1000)), NO_LUNGS),
    refused("water alone", file(lambda: nothing_but(0)), r"no air near -1000 HU .*no chest CT"),
    taken("one lung", file(lambda: changed(without_right_lung)), warns("no right lung was found or given")),
    taken(
        "cut to one lung",
        file(lambda: chest()[: chest().GetSize()[0] // 2]),
        warns("no left lung was found or given"),
        between("lung_ml", 280, 360),
        between("consolidation_percent", 0, 5),
    ),
    taken(
        "upper half of the lungs",
        file(lambda: chest()[:, :, 32:]),
        warns("lower edge of the scan", "the first slice shows .* cm2 of lung"),
    ),
    taken("lower half of the lungs", file(lambda: chest()[:, :, :34]), warns("upper edge of the scan")),
    refused("one slice", file(lambda: chest()[:, :, 30:31]), "has 1 slice, 8 are needed; give the whole CT"),
    refused("two slices", file(lambda: chest()[:, :, 30:32]), "has 2 slices, 8 are needed"),
    refused("one DICOM slice", dicom(lambda: chest()[:, :, 30:31]), "1 slice|single 2D picture"),
    refused("eight slices of small lungs", file(lambda: chest()[:, :, 26:34]), NO_LUNGS),
    # not a CT in Hounsfield units
    refused("two time points", file(lambda: sitk.JoinSeries([chest()] * 2), "ct.nii.gz"), "has 4 dimensions"),
    taken(
        "one time point in 4D",
        file(lambda: sitk.JoinSeries([chest()]), "ct.nii.gz"),
        like_the_plain_chest(),
    ),
    refused("colour", file(lambda: sitk.Compose([chest()] * 3)), r"several values per voxel \(colour"),
    refused(
        "complex numbers",
        file(lambda: sitk.RealAndImaginaryToComplex(*[cast(chest(), sitk.sitkFloat32)] * 2)),
        "several values per voxel|cannot be read",
    ),
    refused("MR", file(resonance), "no CT in Hounsfield units, MR perhaps"),
    refused("MR in DICOM", dicom(resonance, Modality="MR"), r"no axial CT series .*modality MR"),
    refused("a stack of PNG", png_stack, "no DICOM images in this folder; give NRRD, NIfTI"),
    refused("one PNG", one_png, "is a single 2D picture; give the whole CT"),
    refused(
        "8 bit", file(lambda: cast(chest() / 8 + 125, sitk.sitkUInt8)), "8-bit .* export the CT as 16 bit"
    ),
    refused("unsigned with +1024", file(lambda: cast(chest() + 1024, sitk.sitkUInt16)), "lack the rescale"),
    refused("DICOM without rescale", dicom(lambda: chest() + 1024, rescale=(1, 0)), "lack the rescale"),
    refused("float HU in thousands", file(lambda: cast(chest(), sitk.sitkFloat32) / 1000), "not Hounsfield"),
    refused("values from 0 to 1", file(lambda: (cast(chest(), sitk.sitkFloat32) + 1024) / 4095), "rescaled"),
    refused("one value", file(lambda: image_of(np.full((20, 20, 20), -1000))), "not Hounsfield units"),
    taken("float64", file(lambda: cast(chest(), sitk.sitkFloat64)), like_the_plain_chest()),
    taken("int32", file(lambda: cast(chest(), sitk.sitkInt32), "ct.mha"), like_the_plain_chest()),
    # padding, NaN, metal
    *[
        taken(
            f"round field padded with {value}",
            file(lambda value=value: changed(round_field(value))),  # type: ignore[misc]
            like_the_plain_chest(),
        )
        for value in (-2000, -3024, 3071, -1024)
    ],
    taken(
        "a few NaN",
        file(lambda: with_values(np.nan, 0.0005)),
        warns("voxels were not numbers .* read as air"),
        like_the_plain_chest(),
    ),
    taken("a few infinities", file(lambda: with_values(np.inf, 0.0005)), warns("not numbers")),
    refused("many NaN", file(lambda: with_values(np.nan, 0.2)), "20% of the voxels are not numbers"),
    refused("many infinities", file(lambda: with_values(-np.inf, 0.2)), "are not numbers .* export again"),
    refused("all NaN", file(lambda: with_values(np.nan, 2)), "100% of the voxels are not numbers"),
    taken("metal of 30000 HU", file(lambda: changed(metal)), like_the_plain_chest(points=4)),
    taken(
        "metal with streaks through the chest wall",
        file(lambda: changed(metal_through_the_wall)),
        like_the_plain_chest(0.12, 9),  # within the lungs a dark streak looks like emphysema
        warns("open to the air outside .*check the lung mask"),
    ),
    # voxel sizes
    *[
        refused(
            f"{kind} spacing in {name}",
            edited(file(chest, name), replaced(old, new)),
            "voxel size|cannot be read",
        )
        for kind, name, old, new in (
            ("zero", "ct.mha", b"ElementSpacing = 2.5 2.5 2.5", b"ElementSpacing = 2.5 0 2.5"),
            ("negative", "ct.mha", b"ElementSpacing = 2.5 2.5 2.5", b"ElementSpacing = 2.5 -1 2.5"),
            ("no number as", "ct.mha", b"ElementSpacing = 2.5 2.5 2.5", b"ElementSpacing = nan 2.5 2.5"),
            ("zero", "ct.nrrd", b"(2.5,0,0)", b"(0,0,0)"),
            ("infinite", "ct.nrrd", b"(2.5,0,0)", b"(inf,0,0)"),
            ("zero", "ct.nii", struct.pack("<4f", 1, 2.5, 2.5, 2.5), struct.pack("<4f", 1, 2.5, 0, 2.5)),
        )
    ],
    taken("0.1 mm along x", file(lambda: finer((1, 1, 25))), like_the_plain_chest(0.06, 4)),
    refused("0.05 mm", file(lambda: finer((1, 1, 50))), "0.05 x 2.5 x 2.5 mm lies beyond 0.1 to 10 mm"),
    taken("10 mm slices", file(lambda: finer((0.25, 1, 1))), warns("Slices lie 9.* mm|Slices lie 10 mm")),
    taken("0.5 x 0.5 x 10 mm", file(lambda: finer((0.25, 5, 5))), between("lung_ml", 480, 700)),
    refused("12 mm slices", file(lambda: finer((0.21, 1, 1))), "lies beyond 0.1 to 10 mm; correct it"),
    # orientations
    *[
        taken(
            "flipped " + ("".join(a for a, f in zip("xyz", flip, strict=True) if f) or "nowhere"),
            file(lambda flip=flip: sitk.Flip(chest(), flip)),  # type: ignore[misc]
            same_labels(lambda labels, flip=flip: sitk.Flip(labels, flip), 0.985),  # type: ignore[misc]
        )
        for flip in FLIPS
    ],
    taken(
        "stored sagittally",
        file(lambda: sitk.PermuteAxes(chest(), (1, 2, 0))),
        same_labels(lambda labels: sitk.PermuteAxes(labels, (2, 0, 1)), 0.985),
    ),
    taken("oblique by 20 degrees", file(lambda: turned((20, -15, 10))), like_the_plain_chest()),
    taken("oblique by 40 degrees", file(lambda: turned((0, 0, 40)), "ct.nii.gz"), like_the_plain_chest()),
    taken("sheared", file(lambda: sheared(15)), between("lung_ml", 480, 700)),
    refused(
        "sheared NIfTI",
        edited(
            file(lambda: turned((0, 0, 0)), "ct.nii"),
            lambda content: (
                content[:252]
                + struct.pack("<2h", 0, 1)
                + content[256:280]
                + struct.pack("<12f", 2.5, 1, 0, 0, 0, 2.5, 1, 0, 0, 0, 2.5, 0)
                + content[328:]
            ),
        ),
        "axes are sheared, which NIfTI cannot hold; save the CT as NRRD",
    ),  # fmt: skip
    taken(
        "tilted gantry",
        dicom(step=(0, 0.6, 2.4)),
        warns(r"gantry was tilted by 14\.0 degrees"),
        between("lung_ml", 480, 700),
    ),
    # damaged files
    *[
        refused(f"cut off{end}", edited(file(chest, f"ct{end}"), cut), NOT_READABLE)
        for end in FORMATS
        if end not in (".nhdr", ".mhd")
    ],
    *[refused(f"pixels cut off{end}", pixels_cut(f"ct{end}"), NOT_READABLE) for end in (".nhdr", ".mhd")],
    *[
        refused(f"pixels missing{end}", without_its_pixels(f"ct{end}"), NOT_READABLE)
        for end in (".nhdr", ".mhd")
    ],
    *[
        refused(f"scrambled{end}", edited(file(chest, f"ct{end}"), scrambled), NOT_READABLE)
        for end in FORMATS
    ],
    *[refused(f"nothing in it{end}", written(f"ct{end}", b""), NOT_READABLE) for end in (*FORMATS, ".dcm")],
    taken(
        "DICOM with one slice cut off",
        edited(dicom(), lambda content: content[:700]),
        warns("left out: 1|slices are missing"),
    ),
    taken(
        "DICOM with one slice cut in two",
        edited(dicom(), cut),
        warns("left out: 1"),
    ),
    taken(
        "DICOM with one slice short of two bytes",
        edited(dicom(), lambda content: content[:-2]),
        warns("left out: 1"),
    ),
    refused(
        "DICOM with slices missing",
        dicom(skip=range(20, 40)),
        "20 or more slices are missing, .* export all slices",
    ),
    # bombs
    refused(
        "NIfTI that says 60 TB",
        written("ct.nii.gz", gzip.compress(nifti_header((32000,) * 3))),
        "cut off|voxels",
    ),
    refused(
        "NRRD that says 60 TB",
        written("ct.nrrd", nrrd_header((32000,) * 3, "raw") + b"0" * 9000),
        "voxels|cut off",
    ),
    refused(
        "packed NRRD that says 60 TB",
        written("ct.nrrd", nrrd_header((32000,) * 3, "gzip") + zeros(1)),
        "voxels|cut off",
    ),
    refused(
        "packed NRRD of 16 GB",
        written("ct.nrrd", nrrd_header((2000,) * 3, "gzip") + zeros(20)),
        "voxels|cut off",
    ),
    refused(
        "MetaImage that says 60 TB",
        written(
            "ct.mha",
            b"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n"
            b"DimSize = 32000 32000 32000\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
            b"ElementDataFile = LOCAL\n" + bytes(9000),
        ),
        "voxels|cut off",
    ),
    taken("NIfTI with 4 GB of zeros behind it", nifti_bomb, between("lung_ml", 480, 700)),
    taken("deflated DICOM", deflated(dicom()), like_the_plain_chest()),
    refused(
        "deflated DICOM that was cut off",
        edited(one_file_of(deflated(dicom())), cut),
        "the file is cut off, or damaged; copy or export the CT again",
    ),
    refused(
        "deflated DICOM of more than one gigabyte",
        edited(one_file_of(deflated(dicom())), with_zeros_behind),
        "is deflated from more than 1024 MB, more than any CT; export the CT again",
    ),
    taken(
        "DICOM with a gigabyte in one of its deflated slices",
        edited(deflated(dicom()), with_zeros_behind),
        warns("left out: 1"),
    ),
    # headers that made a reader write beyond its memory, found by the fuzzer
    *[
        refused(
            f"MetaImage with {found} dimensions",
            edited(file(chest, "ct.mha"), replaced(b"NDims = 3", f"NDims = {found}".encode())),
            "number of dimensions that no CT has; export the CT again",
        )
        for found in (83, -1, 1000000000)
    ],
    refused(
        "MetaImage with dimensions on the next line",
        edited(file(chest, "ct.mha"), replaced(b"NDims = 3", b"NDims =\n83")),
        "its header is damaged; export the CT again",
    ),
    refused(
        "MetaImage whose pixel file is a format",
        edited(
            file(chest, "ct.mha"), replaced(b"ElementDataFile = LOCAL", b"ElementDataFile = %s%s%n 1 9 1")
        ),
        "its pixels lie in many files; save the CT as one file",
    ),
    *[
        refused(f"NRRD with {what}", edited(file(chest), replaced(old, new)), sentence)
        for what, old, new, sentence in (
            (
                "a format as pixel file",
                b"encoding:",
                b"data file: a%dxx%n 1 64 1\nencoding:",
                "in many files; save",
            ),
            (
                "a type of 100,000 letters",
                b"type: short",
                b"type: " + b"x" * 100000,
                "header is damaged; export",
            ),
            ("9,000 sizes", b"sizes: ", b"sizes: " + b"9 " * 9000, "header is damaged; export"),
            ("voxels as text", b"encoding: gzip", b"encoding: ascii", "as text; save the CT again"),
        )
    ],
    refused(
        "DICOM value of four gigabytes",
        edited(
            one_file_of(dicom()), replaced(b"\xe0\x7f\x10\0OW\0\0", b"\xe0\x7f\x10\0OB\0\0\xf0\xff\xff\xff")
        ),
        "the file is cut off, or damaged; copy or export the CT again",
    ),
    # names and places
    refused("a text as NRRD", written("ct.nrrd", b"Dear colleague,\n"), NO_CT),
    refused("a text as NIfTI", written("ct.nii.gz", b"Dear colleague,\n"), NO_CT),
    refused("a ZIP as NRRD", zipped, NO_CT),
    refused("a JPEG as DICOM", written("ct.dcm", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(500)), NO_CT),
    refused("a report", written("ct.pdf", b"%PDF-1.7\n"), NO_CT),
    refused("a notebook", written("ct.json", b"{}"), NO_CT),
    refused(
        "NRRD called NIfTI",
        lambda folder: save(chest(), folder / "x.nrrd").rename(folder / "ct.nii"),
        "is NRRD by its content; let its name end in .nrrd",
    ),
    refused(
        "NIfTI called NRRD",
        lambda folder: save(chest(), folder / "x.nii").rename(folder / "ct.nrrd"),
        "is NIfTI by its content; let its name end in .nii",
    ),
    taken(
        "NIfTI called packed",
        lambda folder: save(chest(), folder / "x.nii").rename(folder / "ct.nii.gz"),
        like_the_plain_chest(),
    ),
    refused("nothing there", missing("ct.nrrd"), "no such file or folder; check the path"),
    refused("an empty folder", empty_folder, "no DICOM images in this folder; give NRRD"),
    taken("a folder of folders", nested, like_the_plain_chest()),
    taken("a link to a file", link(file(chest), "link.nrrd"), like_the_plain_chest()),
    taken("a link to a folder", link(dicom(), "link"), like_the_plain_chest()),
    taken("a folder that holds itself", folder_in_itself, like_the_plain_chest()),
    refused("a link to nothing", link(missing("gone.nrrd"), "ct.nrrd"), "no such file or folder"),
    refused("a link to itself", link_to_itself, "the link leads to itself; give the file it was made for"),
    refused(
        "a file that may not be read",
        forbidden(file(chest)),
        "may not be read|cannot be read|ermission",
        within=WITHOUT_RIGHTS,
    ),
    refused(
        "a folder that may not be read",
        forbidden(dicom()),
        "may not be read|cannot be read|ermission",
        within=WITHOUT_RIGHTS,
    ),
    refused(
        "an output that may not be written",
        locked_output,
        "Cannot write .*Permission denied. Choose a folder",
        "-o",
        "{folder}/locked/r.seg.nrrd",
        within=WITHOUT_RIGHTS,
    ),
    taken("a path with blanks", file(chest, "my scans/ct  of Monday.nrrd"), like_the_plain_chest()),
    taken("a path in other scripts", file(chest, "患者 Ünïcödé/КТ – грудь 🫁.nrrd"), like_the_plain_chest()),
    taken(
        "quotes and signs in the path", file(chest, "a'b\"c $(x);&[1]%d/ct#1.nrrd"), like_the_plain_chest()
    ),
    taken("a path of 900 characters", deep, like_the_plain_chest()),
    refused("a name of 4,096 characters", missing("x" * 4096), "too long; give a shorter"),
    refused(
        "a path of 4,096 characters",
        missing("/".join(["x" * 100] * 42)),
        "too long; give a shorter|no such file",
    ),
    refused(
        "an output of 4,096 characters",
        file(chest),
        "Cannot write .*too long",
        "-o",
        "{folder}/" + "x" * 4096 + ".nrrd",
    ),
    refused(
        "output is the input", file(chest), "is also an input: give another name", "-o", "{folder}/ct.nrrd"
    ),
    refused(
        "output is the input by another name",
        file(chest),
        "is also an input",
        "-o",
        "{folder}/out/../ct.nrrd",
    ),
    refused(
        "output is a folder",
        folder_as_output,
        "is a folder. Give the name of a file",
        "-o",
        "{folder}/folder.nrrd",
    ),
    refused("no such model", file(chest), "no model 'none'.*models list", "--model", "none", status=MISSING),
    refused(
        "no such device",
        file(chest),
        "device 'cuda' is not available .* use --device cpu",
        "--device",
        "cuda",
        status=MISSING,
    ),
    # masks
    taken("the lungs given", with_mask(as_mask), between("lung_ml", 480, 700), words=MASK),
    taken(
        "the lungs given on another grid", with_mask(coarse_mask), between("lung_ml", 480, 700), words=MASK
    ),
    refused(
        "a mask of another place",
        with_mask(elsewhere),
        "does not overlap the CT; give the mask of this",
        *MASK,
    ),
    refused(
        "an empty mask", with_mask(lambda sides: as_mask(sides * 0)), "the mask is empty; give a mask", *MASK
    ),
    refused(
        "a mask of one voxel", with_mask(one_voxel), "too small to be measured; check the lung mask", *MASK
    ),
    refused(
        "the CT as its mask", with_mask(lambda sides: chest()), "are no labels; give whole numbers", *MASK
    ),
    refused(
        "a mask with two dimensions", with_mask(lambda sides: as_mask(sides)[:, :, 9]), "2 dimensions", *MASK
    ),
    refused("no mask there", file(chest), "no such file or folder", *MASK),
    refused(
        "a text as mask",
        lambda folder: (written("mask.nrrd", b"x")(folder), save(chest(), folder / "ct.nrrd"))[1],
        "cannot be read",
        *MASK,
    ),
    taken(
        "everything as lung",
        with_mask(lambda sides: as_mask(sides * 0 + 1)),
        warns("edge of the scan"),
        words=MASK,
    ),
    # what a patient may have
    taken("contrast", file(lambda: changed(contrast)), like_the_plain_chest(0.08, 6)),
    taken(
        "contrast that DICOM names", dicom(ContrastBolusAgent="Iopamidol"), warns("Contrast medium was given")
    ),
    taken("a sharp kernel", dicom(ConvolutionKernel="B70f"), warns("The kernel B70f is sharp")),
    taken("pneumothorax", file(lambda: changed(pneumothorax)), warns("right lung.*pneumothorax")),
    taken(
        "effusion",
        file(lambda: changed(effusion)),
        between("consolidation_percent", 0, 5),
        between("lung_ml", 300, 450),
    ),
    taken("a body beyond the field of view", file(large_body), like_the_plain_chest(0.05, 3)),
    taken("prone", file(lambda: changed(prone)), like_the_plain_chest(0.05, 6)),
    taken("an adult", file(adult), between("lung_ml", 4200, 5200)),
    taken(
        "emphysema all over",
        file(lambda: filled(0.9, -995)),
        between("lung_ml", 4200, 5200),
        between("emphysema_percent", 50, 100),
    ),
    taken(
        "ground glass all over",
        file(lambda: filled(0.25, 20)),
        between("lung_ml", 4200, 5200),
        between("ground-glass_percent", 80, 100),
    ),
    taken(
        "expiration",
        file(lambda: image_of(phantom(lung_hu=-700).hu)),
        warns("denser than at full inspiration"),
    ),
    taken("extreme noise", file(lambda: image_of(phantom(noise=150).hu)), between("lung_ml", 400, 750)),
    taken("no noise", file(lambda: image_of(phantom(noise=0).hu)), like_the_plain_chest(0.05, 5)),
    taken(
        "all healthy",
        file(lambda: image_of(phantom(()).hu)),
        between("healthy_percent", 92, 100),
        silent("pneumothorax"),
    ),
    refused("all consolidated", file(lambda: changed(consolidated)), NO_LUNGS),
    taken(
        "all consolidated, lungs given",
        with_mask(as_mask, lambda: changed(consolidated)),
        between("consolidation_percent", 90, 100),
        words=MASK,
    ),
    *REPORTED,
]
