# Sets TENSORRT_HEADERS, the folder to include from, and TENSORRT_VERSION. TENSORRT_INCLUDE_DIR, as a variable of CMake
# or of the environment, says where the headers are; else the usual places are searched.
set(candidates)
foreach(pattern /opt/TensorRT-* /usr/local/TensorRT-* /opt/tensorrt /usr/local/tensorrt /usr/src/tensorrt)
  file(GLOB found LIST_DIRECTORIES true ${pattern})
  list(SORT found COMPARE NATURAL ORDER DESCENDING)
  list(APPEND candidates ${found})
endforeach()
list(TRANSFORM candidates APPEND /include)
# A package for this architecture (JetPack's, Ubuntu's) comes before unpacked archives.
find_path(TENSORRT_INCLUDE_DIR NAMES NvInferRuntime.h
          HINTS ENV TENSORRT_INCLUDE_DIR
          PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE} /usr/include /usr/local/include ${candidates}
          NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH
          DOC "Folder with NvInferRuntime.h")
if(NOT EXISTS "${TENSORRT_INCLUDE_DIR}/NvInferRuntime.h" OR NOT EXISTS "${TENSORRT_INCLUDE_DIR}/NvInferVersion.h")
  edge_lsla_missing("the TensorRT headers are not found" "NvInferRuntime.h, NvInferVersion.h"
                    "install them (apt install libnvinfer-headers-dev, part of JetPack), or unpack NVIDIA's archive \
and pass -DTENSORRT_INCLUDE_DIR=FOLDER")
endif()

# NvInferVersion.h says NV_TENSORRT_MAJOR 10 up to 10.12 or so, later NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE.
file(STRINGS "${TENSORRT_INCLUDE_DIR}/NvInferVersion.h" lines REGEX "^#define (NV_TENSORRT|TRT)_(MAJOR|MINOR)")
foreach(part MAJOR MINOR)
  if(NOT "${lines}" MATCHES "_${part}(_ENTERPRISE)? ([0-9]+)")
    message(FATAL_ERROR "no TensorRT version in ${TENSORRT_INCLUDE_DIR}/NvInferVersion.h")
  endif()
  set(${part} ${CMAKE_MATCH_2})
endforeach()
set(TENSORRT_VERSION ${MAJOR}.${MINOR})
if(TENSORRT_VERSION VERSION_LESS 10.0)
  edge_lsla_missing("the TensorRT headers are too old" "${TENSORRT_INCLUDE_DIR}, version ${TENSORRT_VERSION}"
                    "install TensorRT 10.3 or later (JetPack 6.1 or later)")
endif()
message(STATUS "TensorRT headers: ${TENSORRT_INCLUDE_DIR}, version ${TENSORRT_VERSION}")

set(TENSORRT_HEADERS ${TENSORRT_INCLUDE_DIR})
if(CMAKE_CROSSCOMPILING)
  # Packages put them among the build machine's own headers (/usr/include/x86_64-linux-gnu), which must not come into a
  # build for another architecture.
  set(TENSORRT_HEADERS ${CMAKE_BINARY_DIR}/tensorrt-headers)
  file(GLOB headers ${TENSORRT_INCLUDE_DIR}/Nv*.h)
  file(MAKE_DIRECTORY ${TENSORRT_HEADERS})
  foreach(header ${headers})
    get_filename_component(name ${header} NAME)
    file(CREATE_LINK ${header} ${TENSORRT_HEADERS}/${name} SYMBOLIC)
  endforeach()
endif()
