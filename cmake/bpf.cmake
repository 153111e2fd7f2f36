# SPDX-License-Identifier: Apache-2.0
# Compiling BPF programs and generating their skeletons.

find_program(CLANG_BPF NAMES clang clang-16 clang-15 clang-14 REQUIRED)
find_program(BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)
find_path(LIBBPF_INCLUDE bpf/libbpf.h REQUIRED)
# Static, so that the package runs where the distribution's libbpf is older than the calls we need (1.4).
find_library(LIBBPF_STATIC libbpf.a REQUIRED)
find_package(ZLIB REQUIRED)
find_library(LIBELF elf REQUIRED)
add_library(libbpf_static STATIC IMPORTED)
set_target_properties(libbpf_static PROPERTIES IMPORTED_LOCATION ${LIBBPF_STATIC}
  INTERFACE_LINK_LIBRARIES "${LIBELF};ZLIB::ZLIB")

# add_bpf_skeleton(TARGET name.bpf.c): makes name.skel.h in the build tree and adds it to TARGET privately.
function(add_bpf_skeleton target source)
  get_filename_component(name ${source} NAME)
  string(REPLACE ".bpf.c" "" name ${name})
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o)
  set(skeleton ${CMAKE_CURRENT_BINARY_DIR}/${name}.skel.h)
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  # The target CPU v2 is the newest that Linux 5.10's verifier and every later one take without surprises.
  # /usr/include/<multiarch> holds asm/types.h on Debian.
  add_custom_command(OUTPUT ${object}
    COMMAND ${CLANG_BPF} -g -O2 -target bpf -mcpu=v2 -Wall -Werror
            -D__TARGET_ARCH_$<IF:$<STREQUAL:${CMAKE_SYSTEM_PROCESSOR},aarch64>,arm64,x86>
            -I${PROJECT_SOURCE_DIR} -I${LIBBPF_INCLUDE} -idirafter /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}
            -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
    DEPENDS ${source} ${headers} VERBATIM)
  add_custom_command(OUTPUT ${skeleton}
    COMMAND ${BPFTOOL} gen skeleton ${object} name ${name}_bpf > ${skeleton}
    DEPENDS ${object} VERBATIM)
  target_sources(${target} PRIVATE ${skeleton})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR})
endfunction()
