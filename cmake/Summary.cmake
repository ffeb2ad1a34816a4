message(STATUS "mps-supervisor ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, "
  "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, Boost ${Boost_VERSION}, "
  "sanitizers '${MPS_SANITIZE}', warnings are errors: ${MPS_WERROR}")
