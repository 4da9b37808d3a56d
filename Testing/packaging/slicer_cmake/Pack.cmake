# As Slicer's packaging: it stops without readme and licence.
foreach(_file IN ITEMS EXTENSION_README_FILE EXTENSION_LICENSE_FILE)
  if(NOT EXISTS "${${_file}}")
    message(FATAL_ERROR "${_file} is no file: ${${_file}}")
  endif()
endforeach()
