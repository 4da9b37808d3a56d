# The macros; see SlicerConfig.cmake.

include(CMakeParseArguments)
enable_testing()

# A line of the record: what the test reads to see how the macros were called.
function(record)
  string(REPLACE ";" "|" _line "${ARGV}")
  file(APPEND "${CMAKE_BINARY_DIR}/record.txt" "${_line}\n")
endfunction()
file(WRITE "${CMAKE_BINARY_DIR}/record.txt" "")

# As CTK does it: scripts and resources are copied into the build tree at build time, under their relative names;
# what is installed is the whole folder of the build tree.  A file listed as ../file leaves that folder: it would
# be copied, but not installed.
macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR" "TARGET_NAME;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES" ${ARGN})
  if("${MY_SCRIPTS}" STREQUAL "")
    message(FATAL_ERROR "${MY_TARGET_NAME}: SCRIPTS is mandatory")
  endif()
  set(_copies)
  foreach(_file IN LISTS MY_SCRIPTS MY_RESOURCES)
    add_custom_command(
      OUTPUT "${MY_DESTINATION_DIR}/${_file}"
      COMMAND ${CMAKE_COMMAND} -E copy "${CMAKE_CURRENT_SOURCE_DIR}/${_file}" "${MY_DESTINATION_DIR}/${_file}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${_file}"
      )
    list(APPEND _copies "${MY_DESTINATION_DIR}/${_file}")
  endforeach()
  add_custom_target(Copy${MY_TARGET_NAME} ALL DEPENDS ${_copies})
  set(_folder "${MY_DESTINATION_DIR}")
  if(MY_NO_INSTALL_SUBDIR)
    set(_folder "${MY_DESTINATION_DIR}/")
  endif()
  install(DIRECTORY "${_folder}" DESTINATION "${MY_INSTALL_DIR}" COMPONENT RuntimeLibraries)
  record(module ${MY_TARGET_NAME} ${MY_SCRIPTS} ${MY_RESOURCES})
endmacro()

# Slicer adds tests of its own template to a module that asks for them; here they are only recorded.
macro(SlicerMacroConfigureGenericPythonModuleTests _name _scripts)
  record(generic-tests ${_name})
endmacro()

function(ExternalData_add_test _target)
  cmake_parse_arguments(DATATEST "" "NAME" "COMMAND" ${ARGN})
  add_test(NAME ${DATATEST_NAME} COMMAND ${DATATEST_COMMAND})
  record(test ${DATATEST_NAME} ${DATATEST_COMMAND})
endfunction()

if(NOT "$ENV{SLICER_SOURCE_DIR}" STREQUAL "")
  include("$ENV{SLICER_SOURCE_DIR}/CMake/SlicerMacroBuildScriptedModule.cmake")
  include("$ENV{SLICER_SOURCE_DIR}/CMake/SlicerMacroPythonTesting.cmake")
  return()
endif()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(NOT "${MODULE_UNPARSED_ARGUMENTS}" STREQUAL "" OR "${MODULE_NAME}" STREQUAL "")
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: wrong call: ${ARGN}")
  endif()
  foreach(_file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${_file}")
      message(FATAL_ERROR "${MODULE_NAME}: there is no ${_file}")
    endif()
  endforeach()
  set(_subdir "")
  set(_no_subdir NO_INSTALL_SUBDIR)
  if(MODULE_WITH_SUBDIR)
    get_filename_component(_subdir "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    set(_no_subdir "")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MODULE_NAME}
    SCRIPTS ${MODULE_SCRIPTS}
    RESOURCES ${MODULE_RESOURCES}
    DESTINATION_DIR "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${_subdir}"
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    ${_no_subdir}
    )
  if(MODULE_WITH_GENERIC_TESTS)
    SlicerMacroConfigureGenericPythonModuleTests(${MODULE_NAME} _generic_scripts)
  endif()
endmacro()

macro(slicer_add_python_test)
  cmake_parse_arguments(PYTEST "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS;SCRIPT_ARGS" ${ARGN})
  get_filename_component(_script "${PYTEST_SCRIPT}" ABSOLUTE)
  get_filename_component(_name "${PYTEST_SCRIPT}" NAME_WE)
  ExternalData_add_test(${Slicer_ExternalData_DATA_MANAGEMENT_TARGET}
    NAME py_${PYTEST_TESTNAME_PREFIX}${_name}
    COMMAND ${Slicer_LAUNCHER_EXECUTABLE} ${PYTEST_SLICER_ARGS} --python-script ${_script} ${PYTEST_SCRIPT_ARGS}
    )
endmacro()

macro(slicer_add_python_unittest)
  cmake_parse_arguments(PYTEST "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  get_filename_component(_name "${PYTEST_SCRIPT}" NAME_WE)
  ExternalData_add_test(${Slicer_ExternalData_DATA_MANAGEMENT_TARGET}
    NAME py_${PYTEST_TESTNAME_PREFIX}${_name}
    COMMAND ${Slicer_LAUNCHER_EXECUTABLE} ${PYTEST_SLICER_ARGS} --python-code "runUnitTest ${_name}"
    )
endmacro()
