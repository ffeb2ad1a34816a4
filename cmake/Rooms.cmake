# mps_room(NAME [SOURCES …] [LINKS …] [TESTS …] [TEST_LINKS …])
#
# One folder of daemon/ is one static library, mps_<NAME>, and one test program, <NAME>_test, with
# the label 'fast'. Test files are named one by one: a test that no build runs is the cheapest
# failure there is.
function(mps_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS;TESTS;TEST_LINKS" ${ARGN})
  add_library(mps_${name} STATIC ${ROOM_SOURCES})
  target_link_libraries(mps_${name} PUBLIC mps_settings ${ROOM_LINKS} PRIVATE mps_warnings)
  if(ROOM_TESTS)
    add_executable(${name}_test ${ROOM_TESTS})
    target_link_libraries(${name}_test PRIVATE mps_${name} mps_test_main mps_warnings
                                               ${ROOM_TEST_LINKS})
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES LABELS fast TIMEOUT 120)
  endif()
endfunction()

# mps_program(NAME SOURCES … LINKS …): a program in bin/.
function(mps_program name)
  cmake_parse_arguments(PROGRAM "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${PROGRAM_SOURCES})
  target_link_libraries(${name} PRIVATE mps_settings mps_warnings ${PROGRAM_LINKS})
endfunction()
