# Headers of third parties are SYSTEM (imported targets are), so our warnings do not reach them.
# Boost 1.81 is the first with everything used here (as_tuple, awaitable operators, channels).
find_package(Boost 1.81 REQUIRED CONFIG COMPONENTS headers filesystem)
find_package(Threads REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(doctest REQUIRED)

if(NOT TARGET yaml-cpp::yaml-cpp) # yaml-cpp before 0.8
  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
endif()

# libyaml has no CMake package everywhere; its pkg-config file would need pkg-config.
find_path(LIBYAML_INCLUDE_DIR yaml.h REQUIRED)
find_library(LIBYAML_LIBRARY yaml REQUIRED)
add_library(LibYAML::LibYAML UNKNOWN IMPORTED)
set_target_properties(LibYAML::LibYAML PROPERTIES IMPORTED_LOCATION "${LIBYAML_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${LIBYAML_INCLUDE_DIR}")

# Asio's and Beast's function bodies are compiled once, here.
add_library(mps_asio STATIC "${CMAKE_CURRENT_LIST_DIR}/asio.cpp")
target_compile_definitions(mps_asio PUBLIC
  BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED
  BOOST_ERROR_CODE_HEADER_ONLY)
target_compile_features(mps_asio PUBLIC cxx_std_20)
target_link_libraries(mps_asio PUBLIC Boost::headers Threads::Threads)
set_target_properties(mps_asio PROPERTIES POSITION_INDEPENDENT_CODE ON)
