# Sets CUDA_INCLUDE_DIR: cuda.h, cuda_runtime_api.h and what that includes. Headers only; nothing of CUDA is linked.
#
# find_package(CUDAToolkit) demands nvcc (or version.txt) and libcudart, which a Jetson with just the headers lacks, so
# it is asked first and a search by path answers where it cannot. In a cross build it would look for the target's
# libraries.
if(NOT CUDA_INCLUDE_DIR AND NOT CMAKE_CROSSCOMPILING)
  find_package(CUDAToolkit QUIET)
endif()
file(GLOB toolkits LIST_DIRECTORIES true /usr/local/cuda-*)
list(SORT toolkits COMPARE NATURAL ORDER DESCENDING)
list(PREPEND toolkits /usr/local/cuda)
# A named toolkit first, even one without nvcc, which find_package passes over for another.
set(roots ${CUDAToolkit_ROOT} $ENV{CUDAToolkit_ROOT} $ENV{CUDA_PATH})
list(TRANSFORM roots APPEND /include)
set(candidates ${roots} ${CUDAToolkit_INCLUDE_DIRS})
foreach(toolkit ${toolkits})
  list(APPEND candidates ${toolkit}/include ${toolkit}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux/include)
endforeach()
# In a cross build too these are found on the build machine: the headers do not depend on the architecture.
find_path(CUDA_INCLUDE_DIR NAMES cuda_runtime_api.h HINTS ${candidates} NO_CMAKE_FIND_ROOT_PATH
          DOC "Folder with cuda.h and cuda_runtime_api.h")

foreach(header cuda_runtime_api.h cuda.h crt/host_defines.h)
  if(NOT EXISTS "${CUDA_INCLUDE_DIR}/${header}")
    edge_lsla_missing("a CUDA header is not found" "${header}"
                      "install the CUDA headers (apt install cuda-cudart-dev-12-6 cuda-crt-12-6, or the numbers of \
your CUDA version), or pass -DCUDA_INCLUDE_DIR=FOLDER")
  endif()
endforeach()
message(STATUS "CUDA headers: ${CUDA_INCLUDE_DIR}")
