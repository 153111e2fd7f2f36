// SPDX-License-Identifier: Apache-2.0
// The unwind table of every object below a root against what readelf prints of it, row by row: `unwind_rows [ROOT...]`,
// /usr without any. One line for each object that differs or has no table, and the sums at the end. Exit code 1 where
// any row differs. For bench/unwind_rows.sh.
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/unique_fd.h"
#include "symbols/worker/file_reader.h"
#include "tests/unit/symbols/frames_interp.h"

using namespace stackwatch;

namespace {

/// The programs and libraries below a root, each once however many names it has.
class Objects {
 public:
  void find(const std::filesystem::path& root) {
    std::error_code ignored;
    const auto options = std::filesystem::directory_options::skip_permission_denied;
    std::filesystem::recursive_directory_iterator at(root, options, ignored);
    for (; at != std::filesystem::recursive_directory_iterator(); at.increment(ignored)) {
      if (at->is_symlink(ignored) || !at->is_regular_file(ignored)) continue;
      if (is_new_object(at->path().c_str())) paths_.push_back(at->path());
    }
  }
  [[nodiscard]] const std::vector<std::string>& paths() const { return paths_; }

 private:
  bool is_new_object(const char* path) {
    const UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC));
    Elf64_Ehdr header{};
    struct stat status {};
    if (!file || read_at(file.get(), 0, &header, sizeof header) != sizeof header) return false;
    const bool elf = std::string_view(reinterpret_cast<const char*>(header.e_ident), SELFMAG) == ELFMAG;
    if (!elf || (header.e_type != ET_EXEC && header.e_type != ET_DYN)) return false;
    return ::fstat(file.get(), &status) == 0 && seen_.emplace(status.st_dev, status.st_ino).second;
  }

  std::set<std::pair<dev_t, ino_t>> seen_;
  std::vector<std::string> paths_;
};

}  // namespace

int main(int argc, char** argv) {
  if (!interp::have_readelf()) {
    fmt::print(stderr, "unwind_rows: readelf cannot be run (package binutils)\n");
    return 1;
  }
  Objects objects;
  for (int i = 1; i < argc; ++i) objects.find(argv[i]);
  if (argc < 2) objects.find("/usr");
  interp::Comparison all;
  size_t compared_objects = 0;
  size_t equal_objects = 0;
  std::map<std::string, size_t> without;
  for (const std::string& path : objects.paths()) {
    const auto compared = interp::compare_file(path);
    if (!compared) {
      ++without[compared.error().why];
      continue;
    }
    all += *compared;
    ++compared_objects;
    equal_objects += compared->different == 0 ? 1 : 0;
    if (compared->different == 0) continue;
    fmt::print("{}: {} of {} rows differ\n", path, compared->different, compared->rows);
    for (const std::string& example : compared->examples) fmt::print("    {}\n", example);
  }
  fmt::print("objects {} (without a difference {})\n", compared_objects, equal_objects);
  for (const auto& [why, count] : without) fmt::print("no table {}: {}\n", count, why);
  fmt::print("rows {}\nequal {}\n  by an expression, of which only the kind is compared {}\n", all.rows, all.equal,
             all.expressions);
  fmt::print(
      "  frame pointer undefined or not expressible, and said so {}\nnot expressible, and said so {}\ndifferent {}\n",
      all.frame_lost, all.inexpressible, all.different);
  fmt::print("not compared: of code that the linker left out {}, of code told of twice {}\n", all.outside, all.covered);
  return all.different == 0 ? 0 : 1;
}
