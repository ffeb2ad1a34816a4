include(GNUInstallDirs)
install(TARGETS mps-supervisor mps-ctl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES "${PROJECT_SOURCE_DIR}/packaging/mps-supervisor.service"
        DESTINATION lib/systemd/system)
install(FILES "${PROJECT_SOURCE_DIR}/packaging/supervisor.yaml"
        DESTINATION /etc/mps-supervisor)
