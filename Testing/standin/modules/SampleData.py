"""Stands in for Slicer's Sample Data module: registered sources, checked by their checksum, loaded as nodes.

There is no network in tests: it downloads from `file:` addresses only.
"""

from __future__ import annotations

import logging
import shutil
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

ATTEMPTS = 3


class SampleData(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = "Sample Data"
        parent.categories = ["Informatics"]


def listOf(value: Any, count: int) -> list[Any]:
    """One value per file: a single value and None stand for all."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


class SampleDataSource:
    """A data set: one or several files with their addresses, checksums and node names."""

    def __init__(
        self,
        sampleName: str | None = None,
        sampleDescription: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        checksums: Any = None,
        loadFiles: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFileProperties: dict[str, Any] | None = None,
    ) -> None:
        self.sampleName = sampleName
        self.sampleDescription = sampleDescription or sampleName
        self.uris = listOf(uris, 1)
        count = len(self.uris)
        self.fileNames, self.nodeNames = listOf(fileNames, count), listOf(nodeNames, count)
        self.checksums, self.loadFiles = listOf(checksums, count), listOf(loadFiles, count)
        self.loadFileTypes = listOf(loadFileTypes, count)
        self.loadFileProperties = dict(loadFileProperties or {})
        self.customDownloader = customDownloader
        self.thumbnailFileName = thumbnailFileName
        lists = (self.fileNames, self.nodeNames, self.checksums, self.loadFiles, self.loadFileTypes)
        if any(len(each) != count for each in lists):
            raise ValueError(f"the fields of sample data {sampleName} have different lengths")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleDataSource) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class SampleDataLogic:
    """Registers sources, downloads and loads them."""

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str) -> None:
        """Give a category a title."""
        titles = vars(slicer.modules).setdefault("sampleDataSourceCategories", {})
        titles.setdefault(category, {})["title"] = title

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **source: Any) -> None:
        """Add a source to a category, unless the same is there already."""
        sources = vars(slicer.modules).setdefault("sampleDataSources", {}).setdefault(category, [])
        added = SampleDataSource(**source)
        if added not in sources:
            sources.append(added)

    @staticmethod
    def sampleDataSourcesByCategory(category: str | None = None) -> Any:
        sources = vars(slicer.modules).setdefault("sampleDataSources", {})
        return sources if category is None else sources.get(category, [])

    @staticmethod
    def categoryTitle(category: str) -> str:
        titles = vars(slicer.modules).get("sampleDataSourceCategories", {})
        return str(titles.get(category, {}).get("title", category))

    def sourceForSampleName(self, sampleName: str) -> SampleDataSource | None:
        """The first registered source of that name."""
        allSources = [each for sources in self.sampleDataSourcesByCategory().values() for each in sources]
        return next((each for each in allSources if each.sampleName == sampleName), None)

    def categoryForSource(self, source: SampleDataSource) -> str | None:
        categories = self.sampleDataSourcesByCategory().items()
        return next((category for category, sources in categories if source in sources), None)

    def downloadSample(self, sampleName: str) -> Any:
        """Load the source of that name.

        Returns:
            The first node.

        Raises:
            IndexError: if there is no such source, or it could not be downloaded and loaded, as in Slicer.
        """
        return self.downloadSamples(sampleName)[0]

    def downloadSamples(self, sampleName: str) -> list[Any]:
        source = self.sourceForSampleName(sampleName)
        return self.downloadFromSource(source) if source is not None else []

    def downloadFromURL(self, **source: Any) -> list[Any]:
        return self.downloadFromSource(SampleDataSource(**source))

    def downloadFromSource(self, source: SampleDataSource) -> list[Any]:
        """The loaded nodes (paths of files not to load), of the files whose checksum is right."""
        if source.customDownloader is not None:
            return list(source.customDownloader(source) or [])
        found = [self._fetch(source, index) for index in range(len(source.uris))]
        return [each for each in found if each is not None]

    def _fetch(self, source: SampleDataSource, index: int) -> Any:
        for _attempt in range(ATTEMPTS):
            path = self.downloadFileIntoCache(
                source.uris[index], source.fileNames[index], source.checksums[index]
            )
            if path is None:
                continue
            if source.loadFiles[index] is False or source.nodeNames[index] is None:
                return str(path)
            return self._load(path, source, index)
        return None

    def downloadFileIntoCache(self, uri: str, name: str, checksum: str | None = None) -> Path | None:
        """Copy the file into the scene's cache; a file whose checksum is wrong does not stay there."""
        cache = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory())
        path = cache / name
        address = urllib.parse.urlparse(uri)
        if address.scheme != "file":
            raise RuntimeError(f"a test must not download from the network: {uri}")
        algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
        shutil.copyfile(urllib.request.url2pathname(address.path), path)
        if algorithm is not None and slicer.util.computeChecksum(algorithm, str(path)) != digest:
            logging.error("The checksum of %s is wrong", path)
            path.unlink()
            return None
        return path

    @staticmethod
    def _load(path: Path, source: SampleDataSource, index: int) -> Any:
        fileType = source.loadFileTypes[index] or slicer.app.coreIOManager().fileType(str(path))
        properties = {**source.loadFileProperties, "name": source.nodeNames[index]}
        node = slicer.util.loadNodeFromFile(str(path), fileType, properties)
        if node is not None and node.GetStorageNode() is not None:
            slicer.mrmlScene.RemoveNode(node.GetStorageNode())  # the cache is no place to save to
        return node


def downloadSample(sampleName: str) -> Any:
    """Load the source of that name; returns its first node."""
    return SampleDataLogic().downloadSample(sampleName)


def downloadSamples(sampleName: str) -> list[Any]:
    """Load the source of that name; returns its nodes."""
    return SampleDataLogic().downloadSamples(sampleName)


def downloadFromURL(**source: Any) -> list[Any]:
    """Download and load files without registering them."""
    return SampleDataLogic().downloadFromURL(**source)
