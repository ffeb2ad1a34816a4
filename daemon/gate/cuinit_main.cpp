// mps-cuinit: calls cuInit of the node's libcuda, to let the supervisor see what a client says
// first. --where: prints which library that is instead, with its size and time of change.
#include <dlfcn.h>
#include <sys/stat.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int where(void* function) {
  Dl_info info{};
  char path[PATH_MAX];
  struct stat file {};
  if (::dladdr(function, &info) == 0 || ::realpath(info.dli_fname, path) == nullptr ||
      ::stat(path, &file) != 0) {
    return 1;
  }
  std::printf("%s %lld %lld.%09ld\n", path, static_cast<long long>(file.st_size),
              static_cast<long long>(file.st_mtim.tv_sec), file.st_mtim.tv_nsec);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", ::dlerror());
    return 1;
  }
  void* function = ::dlsym(library, "cuInit");
  if (function == nullptr) return 1;
  if (count > 1 && std::strcmp(arguments[1], "--where") == 0) return where(function);
  const int error = reinterpret_cast<int (*)(unsigned)>(function)(0);
  std::printf("%d\n", error);
  return 0;
}
