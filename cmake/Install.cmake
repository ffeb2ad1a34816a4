include(GNUInstallDirs)
install(TARGETS mps-supervisor mps-ctl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS mps-gate mps-cuinit
        RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/mps-supervisor)
# What the supervisor puts into each share.
install(PROGRAMS "${MPS_RUN_PROGRAM}" "${MPS_SHIM_LIBRARY}"
        DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/mps-supervisor)
install(FILES "${PROJECT_SOURCE_DIR}/packaging/mps-supervisor.service"
        DESTINATION lib/systemd/system)
install(FILES "${PROJECT_SOURCE_DIR}/packaging/supervisor.yaml"
              "${PROJECT_SOURCE_DIR}/policies/default.yaml"
        DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY "${PROJECT_SOURCE_DIR}/policies/examples" DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY "${PROJECT_SOURCE_DIR}/client-shim/examples/"
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples/containers USE_SOURCE_PERMISSIONS)
install(FILES "${PROJECT_SOURCE_DIR}/policies/mps-policy.schema.json"
        DESTINATION ${CMAKE_INSTALL_DATADIR}/mps-supervisor)

# What people edit is never written over. And who has taken default.yaml away, and with it let in
# named namespaces only, does not get it back with an upgrade: it comes with the folder, or not.
install(CODE [[
  function(first_time file folder marker)
    if(NOT EXISTS "$ENV{DESTDIR}${folder}/${marker}")
      file(INSTALL "${file}" DESTINATION "${folder}")
    else()
      message(STATUS "Left alone: $ENV{DESTDIR}${folder}/${marker}")
    endif()
  endfunction()
]])
install(CODE "
  first_time(\"${PROJECT_SOURCE_DIR}/packaging/supervisor.yaml\" /etc/mps-supervisor supervisor.yaml)
  first_time(\"${PROJECT_SOURCE_DIR}/policies/default.yaml\" /etc/mps-supervisor/policies \"\")
")
