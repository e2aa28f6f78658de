# nf_library, nf_program, nf_test: one line per target. Warnings and sanitizers live on the INTERFACE target nf_flags.
# Two warnings of GCC 12 are off: they misfire inside std::string and std::optional at -O3.
add_library(nf_flags INTERFACE)
target_compile_options(nf_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wcast-align -Woverloaded-virtual
  -Wnull-dereference -Wno-maybe-uninitialized -Wno-stringop-overflow -ffp-contract=off>)  # contraction: the same bits in every build of a source
if(NF_WERROR)
  target_compile_options(nf_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(NF_SANITIZE)
  target_compile_options(nf_flags INTERFACE -fsanitize=${NF_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(nf_flags INTERFACE -fsanitize=${NF_SANITIZE})
  if(NF_SANITIZE MATCHES undefined)
    target_compile_options(nf_flags INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()
if(NF_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "NF_FUZZ needs clang: CC=clang-14 CXX=clang++-14 cmake ... -DNF_FUZZ=ON")
  endif()
  target_compile_options(nf_flags INTERFACE -fsanitize=fuzzer-no-link,address -fno-omit-frame-pointer -g1
    -Wno-unknown-warning-option)
endif()
target_include_directories(nf_flags INTERFACE ${PROJECT_SOURCE_DIR})

find_program(NF_CCACHE ccache)
if(NF_CCACHE)
  # Precompiled headers are cached only with these two exceptions (ccache manual, "Precompiled headers").
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${NF_CCACHE})
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
endif()

# One precompiled header for every target that includes ATen (a plain include costs 5 to 12 s a file).
function(nf_use_torch target)
  if(NOT TARGET nf_torch_pch)
    file(WRITE ${CMAKE_BINARY_DIR}/nf_torch_pch.cpp "")
    add_library(nf_torch_pch STATIC ${CMAKE_BINARY_DIR}/nf_torch_pch.cpp)
    target_link_libraries(nf_torch_pch PUBLIC nf_flags nf_torch)
    target_precompile_headers(nf_torch_pch PRIVATE <ATen/ATen.h> <ATen/Parallel.h>
      <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/autograd.h> <torch/library.h>
      <algorithm> <array> <cstdint> <filesystem> <functional> <memory> <optional> <span> <string> <vector>)
  endif()
  target_precompile_headers(${target} REUSE_FROM nf_torch_pch)
  target_link_libraries(${target} PUBLIC nf_torch)
endfunction()

function(nf_library name)  # nf_library(name [TORCH] SOURCES ... DEPS ...)
  cmake_parse_arguments(A "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC nf_flags ${A_DEPS})
  if(A_TORCH)
    nf_use_torch(${name})
  endif()
endfunction()

add_custom_target(programs)  # what users run, without tests and benches

function(nf_program name)  # nf_program(name [TORCH] SOURCES ... DEPS ...): build/bin/name
  cmake_parse_arguments(A "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE nf_flags ${A_DEPS} CLI11::CLI11)
  if(A_TORCH)
    target_precompile_headers(${name} REUSE_FROM nf_torch_pch)
    target_link_libraries(${name} PRIVATE nf_torch)
  endif()
  if(NOT CMAKE_CURRENT_SOURCE_DIR MATCHES "/(bench|tests)(/|$)")
    add_dependencies(programs ${name})
  endif()
endfunction()

# nf_label_target(name label ...): tests_unit, tests_threads, ... build the tests of one label.
function(nf_label_target name)
  foreach(label ${ARGN})
    if(NOT TARGET tests_${label})
      add_custom_target(tests_${label})
    endif()
    add_dependencies(tests_${label} ${name})
  endforeach()
endfunction()

# nf_test(name [TORCH] SOURCES ... DEPS ... LABELS ... RANKS n TIMEOUT s): one GoogleTest program, one ctest entry.
# RANKS n starts it through mpirun. tests/support/paths.h tells tests where golden values and programs lie.
function(nf_test name)
  cmake_parse_arguments(A "TORCH" "RANKS;TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  if(NOT TARGET ${name})
    add_executable(${name} ${A_SOURCES})
    target_link_libraries(${name} PRIVATE nf_flags ${A_DEPS})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_compile_definitions(${name} PRIVATE NF_SOURCE_DIR="${PROJECT_SOURCE_DIR}" NF_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
    if(A_TORCH)
      target_precompile_headers(${name} REUSE_FROM nf_torch_pch)
      target_link_libraries(${name} PRIVATE nf_torch)
    endif()
    if(A_RANKS)
      target_link_libraries(${name} PRIVATE GTest::gtest)
    else()
      target_link_libraries(${name} PRIVATE GTest::gtest GTest::gtest_main GTest::gmock)
    endif()
  endif()
  nf_label_target(${name} ${A_LABELS})
  set(test ${name})
  if(A_RANKS)
    set(test ${name}_${A_RANKS}ranks)
    add_test(NAME ${test} COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none -np ${A_RANKS} $<TARGET_FILE:${name}>)
  else()
    add_test(NAME ${test} COMMAND ${name})
  endif()
  set_tests_properties(${test} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}" ENVIRONMENT
    "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMP_NUM_THREADS=1;MKL_CBWR=AUTO")
endfunction()

function(nf_report)
  message(STATUS "nfscale ${PROJECT_VERSION}: data pipeline ${NF_HAVE_DATA}, MPI ${NF_HAVE_MPI}, scaling fits ${NF_HAVE_ANALYSIS}, CUDA plug-in ${NF_HAVE_CUDA}, sanitizers '${NF_SANITIZE}'")
endfunction()
