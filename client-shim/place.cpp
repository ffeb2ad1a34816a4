#include "place.h"

#include <string.h>

#include "system.h"

namespace mps::client {

namespace {

bool set_folder(Place& place, const char* folder) {
  Text<k_path_limit> control;  // the longest of the addresses in it
  return place.folder.print("%s", folder) && place.socket.print("%s/admission.sock", folder) &&
         place.pipe.print("%s/pipe", folder) && control.print("%s/pipe/control", folder);
}

}  // namespace

bool go_up(char* path) {
  char* slash = strrchr(path, '/');
  if (slash == nullptr || slash == path) return false;
  *slash = '\0';
  return true;
}

bool is_share(const char* folder, Place& place) {
  return set_folder(place, folder) && sys::is_there(place.pipe.data);
}

bool find_place(const char* file, const char* pipe_directory, Place& place) {
  Text<4096> path;
  if (file != nullptr && path.print("%s", file) && go_up(path.data) && go_up(path.data) &&
      is_share(path.data, place)) {
    return true;
  }
  if (pipe_directory == nullptr || !path.print("%s", pipe_directory)) return false;
  for (size_t end = strlen(path.data); end > 1 && path.data[end - 1] == '/'; --end) {
    path.data[end - 1] = '\0';
  }
  const char* slash = strrchr(path.data, '/');
  if (slash == nullptr || !equal(slash, "/pipe") || !go_up(path.data)) return false;
  return set_folder(place, path.data) && sys::is_there(place.socket.data);
}

}  // namespace mps::client
