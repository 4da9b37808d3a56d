"""The application's I/O manager over MRML's own storage nodes and the modules' logics.

`slicer.util.load...` and `slicer.util.save...` call this; files are read and written by Slicer's own code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from pythonqt.rules import cppStandin
from qt import Signal

NODE_CLASSES = {
    "TableFile": "vtkMRMLTableNode",
    "ModelFile": "vtkMRMLModelNode",
    "TextFile": "vtkMRMLTextNode",
    "MarkupsFile": "vtkMRMLMarkupsFiducialNode",
    "TransformFile": "vtkMRMLTransformNode",
    "ColorTableFile": "vtkMRMLColorTableNode",
}
FILE_TYPES = {
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".nii": "VolumeFile",
    ".nii.gz": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
    ".dcm": "VolumeFile",
    ".tsv": "TableFile",
    ".csv": "TableFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".ply": "ModelFile",
    ".obj": "ModelFile",
    ".json": "TextFile",
    ".txt": "TextFile",
    ".mrk.json": "MarkupsFile",
    ".fcsv": "MarkupsFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".ctbl": "ColorTableFile",
}
LABEL_MAP, SINGLE_FILE = 1, 8  # options of vtkSlicerVolumesLogic::AddArchetypeVolume


def knownExtension(path: str) -> str:
    """The longest known extension of the file's name; empty if there is none."""
    name = Path(path).name.lower()
    return max((each for each in FILE_TYPES if name.endswith(each)), key=len, default="")


def baseName(path: str) -> str:
    name = Path(path).name
    return name[: len(name) - len(knownExtension(path))] or name


@cppStandin
class qSlicerCoreIOManager(qt.QObject):
    """Reads and writes nodes and scenes."""

    newFileLoaded = Signal(object)
    fileSaved = Signal(object)

    def fileType(self, path: str) -> str:
        return FILE_TYPES.get(knownExtension(str(path)), "NoFile")

    def fileWriterFileType(self, node: Any, _format: str = "") -> str:
        names = {className: fileType for fileType, className in NODE_CLASSES.items()}
        if node.IsA("vtkMRMLSegmentationNode"):
            return "SegmentationFile"
        return "VolumeFile" if node.IsA("vtkMRMLVolumeNode") else names.get(node.GetClassName(), "NodeFile")

    def fileWriterExtensions(self, node: Any) -> tuple[str, ...]:
        storage = node.CreateDefaultStorageNode()
        if storage is None:
            return ()
        storage.UnRegister(None)
        storage.SetScene(slicer.mrmlScene)  # the scene knows the image formats
        types = storage.GetSupportedWriteFileTypes()
        return tuple(types.GetValue(index) for index in range(types.GetNumberOfValues()))

    def extractKnownExtension(self, path: str, _node: Any = None) -> str:
        return knownExtension(path)

    def addDefaultStorageNodes(self) -> None:
        """Give every storable node of the scene a storage node."""
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            if node.GetStorageNode() is None and node.GetSaveWithScene():
                node.AddDefaultStorageNode()

    # ---- reading

    def loadNodes(
        self, fileType: str, properties: dict[str, Any], loaded: Any = None, messages: Any = None
    ) -> bool:
        """Read a file into the scene.

        Args:
            fileType: such as `VolumeFile`.
            properties: `fileName`, and what the reader of that type understands.
            loaded: a vtkCollection that gets the new nodes.
            messages: a vtkMRMLMessageCollection that gets the reasons for a failure.
        """
        path = str(properties["fileName"])
        if not Path(path).exists():
            return report(messages, f"File does not exist: {path}")
        if fileType == "SceneFile":
            return self._readScene(path, bool(properties.get("clear")))
        node = self._readNode(fileType, path, properties)
        if node is None:
            return report(messages, f"No reader for {path} as {fileType}, or it failed")
        if loaded is not None:
            loaded.AddItem(node)
        self.newFileLoaded.emit(properties)
        return True

    def loadScene(self, path: str, clear: bool = True) -> bool:
        return self._readScene(str(path), clear)

    def _readScene(self, path: str, clear: bool) -> bool:
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        scene.SetRootDirectory(str(Path(path).parent))
        return bool(scene.Connect() if clear else scene.Import())

    def _readNode(self, fileType: str, path: str, properties: dict[str, Any]) -> Any:
        name = str(properties.get("name", baseName(path)))
        if fileType == "VolumeFile":
            options = LABEL_MAP * bool(properties.get("labelmap")) + SINGLE_FILE * bool(
                properties.get("singleFile")
            )
            node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)
            if node is not None and properties.get("show", True):
                self._showVolume(node)
            return node
        if fileType == "SegmentationFile":
            opacities = properties.get("autoOpacities", True)
            return slicer.modules.segmentations.logic().LoadSegmentationFromFile(path, opacities, name)
        return (
            self._readStorableNode(NODE_CLASSES[fileType], path, name) if fileType in NODE_CLASSES else None
        )

    @staticmethod
    def _showVolume(node: Any) -> None:
        logic = slicer.app.applicationLogic()
        selection = logic.GetSelectionNode()
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            selection.SetActiveLabelVolumeID(node.GetID())
        else:
            selection.SetActiveVolumeID(node.GetID())
        logic.PropagateVolumeSelection()

    @staticmethod
    def _readStorableNode(className: str, path: str, name: str) -> Any:
        node = slicer.mrmlScene.AddNewNodeByClass(className, name)
        node.AddDefaultStorageNode(path)
        node.GetStorageNode().SetFileName(path)
        if not node.GetStorageNode().ReadData(node):
            slicer.mrmlScene.RemoveNode(node)
            return None
        if hasattr(node, "CreateDefaultDisplayNodes"):
            node.CreateDefaultDisplayNodes()
        return node

    # ---- writing

    def saveNodes(self, fileType: str, properties: dict[str, Any], messages: Any = None) -> bool:
        """Write a node (`nodeID`) or the scene (file type `SceneFile`) to `fileName`."""
        path = str(properties["fileName"])
        if fileType == "SceneFile":
            return self._writeScene(path, messages)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        if storage is None:
            return report(messages, f"A {node.GetClassName()} cannot be written to a file")
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(bool(properties["useCompression"]))
        return bool(storage.WriteData(node)) or report(messages, f"Failed to write {path}")

    def saveScene(self, path: str, _screenshot: Any = None) -> bool:
        return self._writeScene(str(path))

    def _writeScene(self, path: str, messages: Any = None) -> bool:
        """Write a bundle (.mrb), the scene alone (.mrml), or a new folder with the scene and its data."""
        scene, folder = slicer.mrmlScene, Path(path).resolve().parent
        if not os.access(folder, os.W_OK):
            return report(messages, f"Failed to save scene as {path}: {folder} is not writeable")
        if not path.endswith((".mrb", ".mrml")):
            Path(path).mkdir(exist_ok=True)
            return bool(slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(path, None))
        scene.SetURL(path)
        scene.SetRootDirectory(str(folder))
        if path.endswith(".mrml"):
            return bool(scene.Commit(path))
        written = bool(scene.WriteToMRB(path, None, messages))
        scene.SetStorableNodesModifiedSinceRead()  # the nodes' own files are still to be saved
        return written

    def exportNodes(
        self, nodeIDs: Any, fileNames: Any, _properties: Any, hardenTransforms: bool, messages: Any = None
    ) -> bool:
        """Write copies of nodes: neither their storage nodes nor the nodes themselves change."""
        done = [self._exportNode(*pair, hardenTransforms) for pair in zip(nodeIDs, fileNames, strict=True)]
        return all(done) or report(messages, "Failed to export")

    @staticmethod
    def _exportNode(nodeID: str, path: str, harden: bool) -> bool:
        node = slicer.mrmlScene.GetNodeByID(nodeID)
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)
        storage.SetFileName(str(path))
        if not harden or node.GetParentTransformNode() is None:
            return bool(storage.WriteData(node))
        clone = slicer.mrmlScene.AddNewNodeByClass(node.GetClassName())
        try:
            clone.CopyContent(node, True)
            clone.SetAndObserveTransformNodeID(node.GetTransformNodeID())
            clone.HardenTransform()
            return bool(storage.WriteData(clone))
        finally:
            slicer.mrmlScene.RemoveNode(clone)


def report(messages: Any, text: str) -> bool:
    """Tell the caller why it failed; always False."""
    if messages is not None:
        messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
    return False
