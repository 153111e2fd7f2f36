// SPDX-License-Identifier: Apache-2.0
#include "config/load.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "config/parse.h"
#include "config/problems.h"
#include "config/toml_reader.h"
#include "core/unique_fd.h"

namespace stackwatch {
namespace {

constexpr char kTooLarge[] = "it is larger than 256 KiB";

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

// Why a file could not be read. Not an Error: a configuration that cannot be read is wrong use, whatever the errno.
struct Unreadable {
  std::string why;
  std::string hint;
};

Unreadable unreadable(int error_number) {
  return {std::generic_category().message(error_number),
          error_number == EACCES ? "it must be readable to the daemon" : ""};
}

// Regular files and /dev/null. O_NONBLOCK and no FIFOs, because a reload must not wait for a writer.
tl::expected<std::string, Unreadable> read_file(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return tl::unexpected(unreadable(errno));
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) return tl::unexpected(unreadable(errno));
  if (S_ISDIR(status.st_mode)) return tl::unexpected(unreadable(EISDIR));
  if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode)) {
    return tl::unexpected(Unreadable{"it is no regular file", {}});
  }
  // One byte more than allowed tells a file that is too large, and one that grows meanwhile.
  std::string text(kMaxConfigFileBytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return tl::unexpected(unreadable(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMaxConfigFileBytes) return tl::unexpected(Unreadable{kTooLarge, {}});
  text.resize(size);
  return text;
}

void apply_text(std::string_view text, std::span<const DetectorSchema> detectors, Config& config, Problems& problems) {
  apply(read_toml(text, problems), detectors, config, problems);
}

void add_unreadable(Unreadable reason, Problems& problems) {
  problems.add({}, std::move(reason.why), std::move(reason.hint));
}

void apply_file(const std::string& path, std::span<const DetectorSchema> detectors, Config& config,
                Problems& problems) {
  problems.begin_file(path);
  const auto text = read_file(path);
  if (text) {
    apply_text(*text, detectors, config, problems);
  } else {
    add_unreadable(text.error(), problems);
  }
}

// Names of the drop-ins in byte order.
std::vector<std::string> list_dropins(const std::string& directory, Problems& problems) {
  constexpr std::string_view kSuffix = ".toml";
  std::vector<std::string> names;
  problems.begin_file(directory);
  const std::unique_ptr<DIR, CloseDir> dir(opendir(directory.c_str()));
  if (!dir) {
    if (errno != ENOENT) add_unreadable(unreadable(errno), problems);
    return names;
  }
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(dir.get());  // no other thread has this stream
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name.ends_with(kSuffix) && !name.starts_with('.')) names.emplace_back(name);
  }
  if (errno != 0) add_unreadable(unreadable(errno), problems);
  if (names.size() > kMaxDropins) {
    problems.add({}, "more than " + std::to_string(kMaxDropins) + " files", "join some of them");
    names.clear();
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<Config> finished(Config config, const Problems& problems) {
  if (!problems.empty()) return Failure(problems.error());
  complete(config);
  return config;
}

}  // namespace

ConfigFiles ConfigFiles::of(std::string file) {
  std::string dropins = file + ".d";
  return {std::move(file), std::move(dropins), true};
}

Result<Config> load_config(const ConfigFiles& files, std::span<const DetectorSchema> detectors) {
  Config config = default_config(detectors);
  Problems problems;
  const bool missing = access(files.main.c_str(), F_OK) != 0 && errno == ENOENT;
  if (missing && !files.main_required) {
    config.warnings.push_back(files.main + ": no such file: the built-in defaults are in force");
  } else {
    apply_file(files.main, detectors, config, problems);
  }
  for (const std::string& name : list_dropins(files.dropin_dir, problems)) {
    apply_file(files.dropin_dir + "/" + name, detectors, config, problems);
  }
  return finished(std::move(config), problems);
}

Result<Config> parse_config(std::string_view text, std::string_view name, std::span<const DetectorSchema> detectors) {
  Config config = default_config(detectors);
  Problems problems;
  problems.begin_file(std::string(name));
  if (text.size() > kMaxConfigFileBytes) {
    problems.add({}, kTooLarge);
  } else {
    apply_text(text, detectors, config, problems);
  }
  return finished(std::move(config), problems);
}

}  // namespace stackwatch
