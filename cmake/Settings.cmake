# Settings and warnings as INTERFACE targets: linked privately by the project's own code only,
# so that neither reaches a third party's headers.
option(MPS_WERROR "Warnings are errors" OFF)
set(MPS_SANITIZE "" CACHE STRING "Comma-separated list for -fsanitize=")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

# All programs of a build lie side by side, so that they find each other and tests find them.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

add_library(mps_settings INTERFACE)
target_compile_features(mps_settings INTERFACE cxx_std_20)
set_property(TARGET mps_settings PROPERTY INTERFACE_POSITION_INDEPENDENT_CODE ON)
target_include_directories(mps_settings INTERFACE "${PROJECT_SOURCE_DIR}/daemon")
target_compile_definitions(mps_settings INTERFACE _GNU_SOURCE
  MPS_VERSION="${PROJECT_VERSION}")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(mps_settings INTERFACE -fcoroutines)
endif()
if(NOT MPS_SANITIZE)
  target_compile_options(mps_settings INTERFACE -fstack-protector-strong)
  if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
    target_compile_definitions(mps_settings INTERFACE _FORTIFY_SOURCE=2 _GLIBCXX_ASSERTIONS)
  endif()
endif()

# Sanitizers change the ABI of containers and of Asio's separately compiled half: everything
# that we compile gets them, so they are directory-wide rather than part of a target.
if(MPS_SANITIZE)
  # Lines are enough for what they say.
  string(REPLACE "-g" "-g1" CMAKE_CXX_FLAGS_DEBUG "${CMAKE_CXX_FLAGS_DEBUG}")
  add_compile_options(-fsanitize=${MPS_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  if(MPS_SANITIZE MATCHES "undefined")
    # A quarter of the build's time for what the address sanitizer and the processor say as well: a
    # null pointer's use ends the program, our processors take any alignment, and sizes are only
    # known where something is optimised.
    add_compile_options(-fno-sanitize=null,alignment,object-size)
  endif()
  add_link_options(-fsanitize=${MPS_SANITIZE})
  if(MPS_SANITIZE MATCHES "thread")
    # gcc warns about Asio's fences, which it does not instrument; we run one thread per reactor.
    add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  endif()
endif()

add_library(mps_warnings INTERFACE)
target_compile_options(mps_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast
  -Wnon-virtual-dtor -Woverloaded-virtual -Wformat=2 -Wnull-dereference
  $<$<CXX_COMPILER_ID:GNU>:-Wduplicated-cond -Wlogical-op>)
# These misfire inside inlined library code when optimised: the last one at Asio's frames of
# coroutines, whose new is the matching one.
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" OR MPS_SANITIZE)
  target_compile_options(mps_warnings INTERFACE -Wno-null-dereference
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized -Wno-mismatched-new-delete>)
endif()
if(MPS_WERROR)
  target_compile_options(mps_warnings INTERFACE -Werror)
endif()
