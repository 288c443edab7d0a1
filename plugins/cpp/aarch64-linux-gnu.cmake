# Cross build for 64-bit ARM (Jetson) with the distribution's compiler; give it as CMAKE_TOOLCHAIN_FILE.
# Debian and Ubuntu: apt install g++-aarch64-linux-gnu. CUDA's and TensorRT's headers are the same for every
# architecture.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_ASM_COMPILER aarch64-linux-gnu-g++)
# Runs what was built on the build machine, where qemu-user is installed; -L is where the cross compiler's libc lies.
find_program(EDGE_LSLA_QEMU qemu-aarch64)
if(EDGE_LSLA_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${EDGE_LSLA_QEMU} -L /usr/aarch64-linux-gnu)
endif()
