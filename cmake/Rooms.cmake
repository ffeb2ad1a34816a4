# The programs of all tests with the label 'fast', and of those with 'threads': what the sanitizer
# builds need, and nothing else.
add_custom_target(fast_tests)
add_custom_target(threads_tests)

# mps_room(NAME [THREADS] [SOURCES …] [LINKS …] [TESTS …] [TEST_LINKS …])
#
# One folder of daemon/ is one static library, mps_<NAME>, and one test program, <NAME>_test, with
# the label 'fast'. THREADS: more than one thread is at work in it, so it has the
# label 'threads' too, and is what ThreadSanitizer looks at. Test files are named one by one: a test
# that no build runs is the cheapest failure there is.
function(mps_room name)
  cmake_parse_arguments(ROOM "THREADS" "" "SOURCES;LINKS;TESTS;TEST_LINKS" ${ARGN})
  add_library(mps_${name} STATIC ${ROOM_SOURCES})
  target_link_libraries(mps_${name} PUBLIC mps_settings ${ROOM_LINKS} PRIVATE mps_warnings)
  if(ROOM_TESTS)
    add_executable(${name}_test ${ROOM_TESTS})
    target_link_libraries(${name}_test PRIVATE mps_${name} mps_test_main mps_warnings
                                               ${ROOM_TEST_LINKS})
    add_test(NAME ${name} COMMAND ${name}_test)
    set(labels fast)
    add_dependencies(fast_tests ${name}_test)
    if(ROOM_THREADS)
      list(APPEND labels threads)
      add_dependencies(threads_tests ${name}_test)
    endif()
    set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT 120)
  endif()
endfunction()

# mps_program(NAME SOURCES … LINKS …): a program in bin/.
function(mps_program name)
  cmake_parse_arguments(PROGRAM "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${PROGRAM_SOURCES})
  target_link_libraries(${name} PRIVATE mps_settings mps_warnings ${PROGRAM_LINKS})
endfunction()
