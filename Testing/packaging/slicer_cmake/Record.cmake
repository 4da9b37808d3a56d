# Records what the extension says of itself.
foreach(_key IN ITEMS HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS STATUS KEYWORDS TIER DEPENDS)
  file(APPEND "${CMAKE_BINARY_DIR}/record.txt" "extension|${_key}|${EXTENSION_${_key}}\n")
endforeach()
file(APPEND "${CMAKE_BINARY_DIR}/record.txt" "extension|NAME|${PROJECT_NAME}\n")
