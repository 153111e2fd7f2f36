// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/baseline_blob.h"

#include <optional>
#include <string>

namespace stackwatch {
namespace {

constexpr size_t kLengthBytes = 4;

void put(std::vector<std::byte>& out, std::string_view text) {
  const auto length = static_cast<uint32_t>(text.size());
  for (size_t i = 0; i < kLengthBytes; ++i) out.push_back(static_cast<std::byte>(length >> (8 * i)));
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// The next text; nothing where the bytes end before it does.
std::optional<std::string_view> take(std::span<const std::byte>& rest) {
  if (rest.size() < kLengthBytes) return std::nullopt;
  uint32_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= static_cast<uint32_t>(rest[i]) << (8 * i);
  rest = rest.subspan(kLengthBytes);
  if (length > rest.size()) return std::nullopt;
  const std::string_view text(reinterpret_cast<const char*>(rest.data()), length);
  rest = rest.subspan(length);
  return text;
}

Failure refuse(std::string why) {
  return fail(ErrorKind::kFailed, "a stored baseline", std::move(why), "it is learned anew");
}

}  // namespace

std::vector<std::byte> encode_learned(std::span<const LearnedPart> parts) {
  std::vector<std::byte> out;
  for (const LearnedPart& part : parts) {
    put(out, to_string(part.probe));
    put(out, part.detector);
    put(out, part.saved);
  }
  return out;
}

Result<std::vector<LearnedPart>> decode_learned(std::span<const std::byte> blob) {
  std::vector<LearnedPart> parts;
  while (!blob.empty()) {
    const auto probe = take(blob);
    const auto detector = take(blob);
    const auto saved = take(blob);
    if (!probe || !detector || !saved) return refuse("it is cut off");
    const auto kind = parse_probe_kind(*probe);
    if (!kind) return refuse("it is of a probe that this version does not know");
    if (parts.size() == kMaxLearnedParts) return refuse("it has too many parts");
    parts.push_back({*kind, *detector, *saved});
  }
  return parts;
}

}  // namespace stackwatch
