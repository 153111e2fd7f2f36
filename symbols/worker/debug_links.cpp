// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/debug_links.h"

#include <gelf.h>
#include <lzma.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "symbols/protocol.h"
#include "symbols/worker/file_reader.h"

namespace stackwatch {
namespace {

/// The largest dictionary of xz (preset 9) takes 65 MB to unpack; minidebuginfo is packed with 8.
constexpr uint64_t kMaxUnpackerBytes = 80ULL << 20;
constexpr size_t kChecksumBytes = 64 * 1024;

struct Section {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

std::optional<Section> find_section(int file, std::string_view wanted) {
  if (::elf_version(EV_CURRENT) == EV_NONE) return std::nullopt;
  Elf* const elf = ::elf_begin(file, ELF_C_READ, nullptr);
  std::optional<Section> found;
  size_t names = 0;
  if (elf != nullptr && ::elf_kind(elf) == ELF_K_ELF && ::elf_getshdrstrndx(elf, &names) == 0) {
    for (Elf_Scn* section = nullptr; !found && (section = ::elf_nextscn(elf, section)) != nullptr;) {
      GElf_Shdr header;
      if (::gelf_getshdr(section, &header) == nullptr || header.sh_type == SHT_NOBITS) continue;
      const char* const name = ::elf_strptr(elf, names, header.sh_name);
      if (name != nullptr && wanted == name) found = Section{header.sh_offset, header.sh_size};
    }
  }
  ::elf_end(elf);
  return found;
}

/// The content of a small section; empty where there is none or it is not small.
std::string read_section(int file, std::string_view name, size_t most) {
  const auto section = find_section(file, name);
  if (!section || section->bytes > most) return {};
  std::string content(section->bytes, '\0');
  content.resize(read_at(file, section->offset, content.data(), content.size()));
  return content;
}

/// Writes all of it, or says no.
bool write_all(int file, const uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = ::write(file, data, bytes);
    if (written <= 0) return false;
    data += written;
    bytes -= static_cast<size_t>(written);
  }
  return true;
}

bool unpack(int from, const Section& section, int to) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (::lzma_stream_decoder(&stream, kMaxUnpackerBytes, 0) != LZMA_OK) return false;
  std::array<uint8_t, kChecksumBytes> in;
  std::array<uint8_t, kChecksumBytes> out;
  uint64_t taken = 0;
  uint64_t given = 0;
  lzma_ret result = LZMA_OK;
  while (result == LZMA_OK && given <= kMaxUnpackedBytes) {
    if (stream.avail_in == 0 && taken < section.bytes) {
      const size_t got =
          read_at(from, section.offset + taken, in.data(), std::min<uint64_t>(in.size(), section.bytes - taken));
      if (got == 0) break;
      taken += got;
      stream.next_in = in.data();
      stream.avail_in = got;
    }
    stream.next_out = out.data();
    stream.avail_out = out.size();
    result = ::lzma_code(&stream, taken == section.bytes ? LZMA_FINISH : LZMA_RUN);
    const size_t made = out.size() - stream.avail_out;
    if (!write_all(to, out.data(), made)) break;
    given += made;
  }
  ::lzma_end(&stream);
  return result == LZMA_STREAM_END && given <= kMaxUnpackedBytes;
}

}  // namespace

std::optional<DebugLink> read_debug_link(int file) {
  const std::string content = read_section(file, ".gnu_debuglink", protocol::kMaxLinkBytes);
  const size_t name = content.find('\0');
  if (name == std::string::npos || name == 0) return std::nullopt;
  const size_t crc = (name + 4) / 4 * 4;  // the name with its end, padded to four bytes
  DebugLink link{content.substr(0, name), 0};
  if (content.size() < crc + sizeof link.crc) return std::nullopt;
  std::memcpy(&link.crc, content.data() + crc, sizeof link.crc);
  return link;
}

std::optional<SupplementaryLink> read_supplementary_link(int file) {
  const std::string content = read_section(file, ".gnu_debugaltlink", protocol::kMaxLinkBytes);
  const size_t path = content.find('\0');
  if (path == std::string::npos || path == 0) return std::nullopt;
  const size_t bytes = content.size() - path - 1;
  if (bytes == 0 || bytes > protocol::kMaxBuildIdBytes) return std::nullopt;
  const auto* const id = reinterpret_cast<const std::byte*>(content.data()) + path + 1;
  return SupplementaryLink{content.substr(0, path), {id, id + bytes}};
}

UniqueFd unpack_mini_debug_info(int file) {
  const auto section = find_section(file, ".gnu_debugdata");
  if (!section || section->bytes == 0 || section->bytes > kMaxPackedBytes) return {};
  UniqueFd unpacked(::memfd_create("minidebuginfo", MFD_CLOEXEC));
  if (!unpacked || !unpack(file, *section, unpacked.get())) return {};
  return unpacked;
}

std::optional<uint32_t> checksum(int file) {
  struct stat info {};
  if (::fstat(file, &info) != 0 || info.st_size < 0 || static_cast<uint64_t>(info.st_size) > kMaxChecksummedBytes) {
    return std::nullopt;
  }
  std::array<uint8_t, kChecksumBytes> chunk;
  uint32_t crc = 0;
  for (uint64_t at = 0; at < static_cast<uint64_t>(info.st_size);) {
    const size_t got = read_at(file, at, chunk.data(), chunk.size());
    if (got == 0) return std::nullopt;
    crc = ::lzma_crc32(chunk.data(), got, crc);
    at += got;
  }
  return crc;
}

}  // namespace stackwatch
