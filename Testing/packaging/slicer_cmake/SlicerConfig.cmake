# Stands in for Slicer's build tree, of which `find_package(Slicer)` would read this file: the few variables and
# macros that the extension's CMakeLists.txt use.  Own code, written after what Slicer's and CTK's macros do.
# With SLICER_SOURCE_DIR in the environment, Slicer's own macros for modules and tests are taken instead.

get_filename_component(_here "${CMAKE_CURRENT_LIST_FILE}" PATH)

set(Slicer_USE_PYTHONQT ON)
set(Slicer_USE_FILE "${_here}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${_here}/Record.cmake")
set(Slicer_EXTENSION_CPACK "${_here}/Pack.cmake")

# As in Slicer 5.10 on Linux: where modules lie in a build tree and in an installed extension.
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-5.10/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "./${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
set(Slicer_ExternalData_DATA_MANAGEMENT_TARGET "SlicerData")
set(Slicer_LAUNCHER_EXECUTABLE "Slicer")
set(BUILD_TESTING ON)
