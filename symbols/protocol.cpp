// SPDX-License-Identifier: Apache-2.0
#include "symbols/protocol.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace stackwatch::protocol {
namespace {

struct NameRecord {
  uint64_t start = 0;
  uint16_t index = 0;
  NameKind kind{};
  uint16_t name_bytes = 0;
  uint16_t module_bytes = 0;
  uint16_t file_bytes = 0;
  uint16_t inlined = 0;
  uint32_t line = 0;
};
static_assert(sizeof(NameRecord) == 24);

struct InlinedRecord {
  uint32_t line = 0;
  uint16_t name_bytes = 0;
  uint16_t file_bytes = 0;
};
static_assert(sizeof(InlinedRecord) == 8);

struct InfoRecord {
  ObjectStatus status{};
  uint32_t build_id_bytes = 0;
  uint32_t has_debug_info = 0;
  Wish wish{};
  uint32_t link_bytes = 0;
  uint32_t wish_id_bytes = 0;
};
static_assert(sizeof(InfoRecord) == 24);

struct PlaceRecord {
  uint64_t offset = 0;
  uint16_t role = 0;
  uint16_t stepped = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(PlaceRecord) == 16);
static_assert(sizeof(Header) + sizeof(uint32_t) + kMaxAllocatorPlaces * sizeof(PlaceRecord) <= kMaxMessageBytes);

static_assert(sizeof(Header) + kMaxOffsets * sizeof(uint64_t) <= kMaxMessageBytes);
static_assert(sizeof(Header) + sizeof(NameRecord) + kMaxNameBytes + kMaxModuleBytes + kMaxFileBytes +
                  kMaxInlined * (sizeof(InlinedRecord) + kMaxNameBytes + kMaxFileBytes) <=
              kMaxMessageBytes);
static_assert(sizeof(Header) + sizeof(InfoRecord) + 2 * kMaxBuildIdBytes + kMaxLinkBytes <= kMaxMessageBytes);

void append(Bytes& out, const void* data, size_t size) {
  if (size == 0) return;
  const size_t old = out.size();
  out.resize(old + size);
  std::memcpy(out.data() + old, data, size);
}

/// Takes values off the front of a packet; `ok` turns false, and stays so, when there is less than asked for.
struct Reader {
  std::span<const std::byte> rest;
  bool ok = true;

  template <class T>
  T take() {
    T value{};
    if (const auto bytes = take_bytes(sizeof value); ok) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  std::span<const std::byte> take_bytes(size_t size) {
    if (!ok || size > rest.size()) {
      ok = false;
      return {};
    }
    const auto bytes = rest.first(size);
    rest = rest.subspan(size);
    return bytes;
  }
  std::string take_string(size_t size) {
    const auto bytes = take_bytes(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  [[nodiscard]] bool finished() const { return ok && rest.empty(); }
};

std::optional<Header> take_header(Reader& reader) {
  const auto header = reader.take<Header>();
  if (!reader.ok || header.magic != kMagic) return std::nullopt;
  return header;
}

std::optional<Reply> parse_info(const Header& header, Reader& reader) {
  const auto record = reader.take<InfoRecord>();
  if (record.status > ObjectStatus::kHidden || record.build_id_bytes > kMaxBuildIdBytes || record.has_debug_info > 1 ||
      record.wish > Wish::kSupplementary || record.link_bytes > kMaxLinkBytes ||
      record.wish_id_bytes > kMaxBuildIdBytes) {
    return std::nullopt;
  }
  const auto build_id = reader.take_bytes(record.build_id_bytes);
  const auto wish_id = reader.take_bytes(record.wish_id_bytes);
  const auto link = reader.take_string(record.link_bytes);
  if (!reader.finished() || link.find('\0') != std::string::npos) return std::nullopt;
  return ObjectInfo{header.sequence,
                    header.object,
                    record.status,
                    {build_id.begin(), build_id.end()},
                    record.has_debug_info != 0,
                    record.wish,
                    link,
                    {wish_id.begin(), wish_id.end()}};
}

std::optional<Reply> parse_names(const Header& header, Reader& reader) {
  if (header.count == 0 || header.count > kMaxOffsets) return std::nullopt;
  Names names{header.sequence, header.object, {}};
  names.names.reserve(header.count);
  for (unsigned i = 0; i < header.count; ++i) {
    const auto record = reader.take<NameRecord>();
    if (record.index >= kMaxOffsets || record.kind > NameKind::kUnwindEntry || record.name_bytes > kMaxNameBytes ||
        record.module_bytes > kMaxModuleBytes || record.file_bytes > kMaxFileBytes || record.inlined > kMaxInlined) {
      return std::nullopt;
    }
    Name name{record.index, record.kind, record.start, {}, {}, {}, record.line, {}};
    name.name = reader.take_string(record.name_bytes);
    name.module = reader.take_string(record.module_bytes);
    name.file = reader.take_string(record.file_bytes);
    for (unsigned call = 0; call < record.inlined && reader.ok; ++call) {
      const auto inlined = reader.take<InlinedRecord>();
      if (inlined.name_bytes > kMaxNameBytes || inlined.file_bytes > kMaxFileBytes) return std::nullopt;
      const std::string function = reader.take_string(inlined.name_bytes);
      name.inlined.push_back({function, reader.take_string(inlined.file_bytes), inlined.line});
    }
    if (!reader.ok) return std::nullopt;
    names.names.push_back(std::move(name));
  }
  if (!reader.finished()) return std::nullopt;
  return names;
}

/// The end of a path tells more than its beginning.
std::string_view cut_file(std::string_view file) {
  return file.size() > kMaxFileBytes ? file.substr(file.size() - kMaxFileBytes) : file;
}

std::optional<Reply> parse_allocator(const Header& header, Reader& reader) {
  if (header.count > kMaxAllocatorPlaces) return std::nullopt;
  Allocator allocator{header.sequence, header.object, false, {}};
  const auto uncounted = reader.take<uint32_t>();
  allocator.uncounted_new = uncounted != 0;
  allocator.places.reserve(header.count);
  for (unsigned i = 0; i < header.count; ++i) {
    const auto record = reader.take<PlaceRecord>();
    if (record.role >= static_cast<uint16_t>(AllocatorRole::kCount) || record.stepped > 1 || record.reserved != 0) {
      return std::nullopt;
    }
    allocator.places.push_back({static_cast<AllocatorRole>(record.role), record.stepped != 0, record.offset});
  }
  if (!reader.finished() || uncounted > 1) return std::nullopt;
  return allocator;
}

struct TableRecord {
  uint64_t inexpressible;
  uint32_t last;
  uint32_t segments;
};

std::optional<Reply> parse_unwind_rows(const Header& header, Reader& reader) {
  const auto record = reader.take<TableRecord>();
  if (record.last > 1 || record.segments > kMaxUnwindSegments) return std::nullopt;
  UnwindRows rows{header.sequence, header.object, record.last == 1, {}};
  rows.table.inexpressible = record.inexpressible;
  for (uint32_t i = 0; i < record.segments; ++i) rows.table.segments.push_back(reader.take<UnwindSegment>());
  for (unsigned i = 0; i < header.count; ++i) rows.table.rows.push_back(reader.take<UnwindRow>());
  return reader.finished() ? std::optional<Reply>(std::move(rows)) : std::nullopt;
}

Bytes with_header(Type type, size_t count, uint32_t sequence, uint32_t object) {
  const Header header{kMagic, type, static_cast<uint16_t>(count), sequence, object};
  Bytes out;
  append(out, &header, sizeof header);
  return out;
}

Bytes encode_name(const Name& name) {
  const std::string_view function = std::string_view(name.name).substr(0, kMaxNameBytes);
  const std::string_view module = std::string_view(name.module).substr(0, kMaxModuleBytes);
  const std::string_view file = cut_file(name.file);
  const size_t inlined = std::min(name.inlined.size(), kMaxInlined);
  NameRecord record;
  record.start = name.start;
  record.index = name.index;
  record.kind = name.kind;
  record.name_bytes = static_cast<uint16_t>(function.size());
  record.module_bytes = static_cast<uint16_t>(module.size());
  record.file_bytes = static_cast<uint16_t>(file.size());
  record.inlined = static_cast<uint16_t>(inlined);
  record.line = name.line;
  Bytes out;
  append(out, &record, sizeof record);
  append(out, function.data(), function.size());
  append(out, module.data(), module.size());
  append(out, file.data(), file.size());
  for (const Inlined& call : std::span(name.inlined).first(inlined)) {
    const std::string_view callee = std::string_view(call.name).substr(0, kMaxNameBytes);
    const std::string_view source = cut_file(call.file);
    const InlinedRecord head{call.line, static_cast<uint16_t>(callee.size()), static_cast<uint16_t>(source.size())};
    append(out, &head, sizeof head);
    append(out, callee.data(), callee.size());
    append(out, source.data(), source.size());
  }
  return out;
}

/// Length of the well-formed UTF-8 sequence at the front of `text`; 0 where there is none.
size_t utf8_length(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = at(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0U) != 0x80) return 0;
  }
  const unsigned second = at(1);
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool not_scalar = (lead == 0xed && second > 0x9f) || (lead == 0xf4 && second > 0x8f);
  return overlong || not_scalar ? 0 : length;
}

}  // namespace

Bytes encode(const Request& request) {
  if (const auto* add = std::get_if<AddObject>(&request)) {
    Bytes out = with_header(Type::kAddObject, 0, add->sequence, add->object);
    append(out, &add->kind, sizeof add->kind);
    return out;
  }
  if (const auto* debug = std::get_if<AddDebugFile>(&request)) {
    Bytes out = with_header(Type::kAddDebugFile, 0, debug->sequence, debug->object);
    append(out, &debug->kind, sizeof debug->kind);
    return out;
  }
  if (const auto* resolve = std::get_if<Resolve>(&request)) {
    Bytes out = with_header(Type::kResolve, resolve->offsets.size(), resolve->sequence, resolve->object);
    append(out, resolve->offsets.data(), resolve->offsets.size() * sizeof(uint64_t));
    return out;
  }
  if (const auto* find = std::get_if<FindAllocator>(&request)) {
    return with_header(Type::kFindAllocator, 0, find->sequence, find->object);
  }
  if (const auto* build = std::get_if<BuildUnwind>(&request)) {
    return with_header(Type::kBuildUnwind, 0, build->sequence, build->object);
  }
  return with_header(Type::kDropObject, 0, 0, std::get<DropObject>(request).object);
}

Bytes encode(const Hello&) { return with_header(Type::kHello, 0, 0, 0); }

Bytes encode(const ObjectInfo& info) {
  Bytes out = with_header(Type::kObjectInfo, 0, info.sequence, info.object);
  const size_t bytes = info.build_id.size() <= kMaxBuildIdBytes ? info.build_id.size() : 0;
  const size_t wish_bytes = info.wish_id.size() <= kMaxBuildIdBytes ? info.wish_id.size() : 0;
  const size_t link_bytes = info.link.size() <= kMaxLinkBytes ? info.link.size() : 0;
  const InfoRecord record{info.status, static_cast<uint32_t>(bytes),      info.has_debug_info ? 1U : 0U,
                          info.wish,   static_cast<uint32_t>(link_bytes), static_cast<uint32_t>(wish_bytes)};
  append(out, &record, sizeof record);
  append(out, info.build_id.data(), bytes);
  append(out, info.wish_id.data(), wish_bytes);
  append(out, info.link.data(), link_bytes);
  return out;
}

Bytes encode(const Allocator& allocator) {
  const size_t count = std::min(allocator.places.size(), kMaxAllocatorPlaces);
  Bytes out = with_header(Type::kAllocator, count, allocator.sequence, allocator.object);
  const uint32_t uncounted = allocator.uncounted_new || count < allocator.places.size() ? 1 : 0;
  append(out, &uncounted, sizeof uncounted);
  for (size_t i = 0; i < count; ++i) {
    const AllocatorPlace& place = allocator.places[i];
    const PlaceRecord record{place.offset, static_cast<uint16_t>(place.role), place.stepped ? uint16_t{1} : uint16_t{0},
                             0};
    append(out, &record, sizeof record);
  }
  return out;
}

std::vector<Bytes> encode_table(uint32_t sequence, uint32_t object, const UnwindTable& table) {
  static constexpr size_t kRowsPerPacket =
      (kMaxMessageBytes - sizeof(Header) - sizeof(TableRecord) - kMaxUnwindSegments * sizeof(UnwindSegment)) /
      sizeof(UnwindRow);
  std::vector<Bytes> packets;
  size_t done = 0;
  do {
    const size_t rows = std::min(kRowsPerPacket, table.rows.size() - done);
    const bool last = done + rows == table.rows.size();
    const size_t segments = last ? std::min(table.segments.size(), kMaxUnwindSegments) : 0;
    Bytes& out = packets.emplace_back(with_header(Type::kUnwindRows, rows, sequence, object));
    const TableRecord record{table.inexpressible, last ? 1U : 0U, static_cast<uint32_t>(segments)};
    append(out, &record, sizeof record);
    append(out, table.segments.data(), segments * sizeof(UnwindSegment));
    append(out, table.rows.data() + done, rows * sizeof(UnwindRow));
    done += rows;
  } while (done < table.rows.size());
  return packets;
}

std::vector<Bytes> encode(const Names& names) {
  std::vector<Bytes> packets;
  Bytes body;
  uint16_t count = 0;
  const auto flush = [&] {
    if (count == 0) return;
    Bytes packet = with_header(Type::kNames, count, names.sequence, names.object);
    append(packet, body.data(), body.size());
    packets.push_back(std::move(packet));
    body.clear();
    count = 0;
  };
  for (const Name& name : names.names) {
    const Bytes record = encode_name(name);
    if (count == kMaxOffsets || sizeof(Header) + body.size() + record.size() > kMaxMessageBytes) flush();
    append(body, record.data(), record.size());
    ++count;
  }
  flush();
  return packets;
}

std::optional<Request> parse_request(std::span<const std::byte> packet) {
  Reader reader{packet};
  const auto header = take_header(reader);
  if (!header) return std::nullopt;
  std::optional<Request> request;
  if (header->type == Type::kAddObject && header->count == 0) {
    const auto kind = reader.take<FileKind>();
    if (kind <= FileKind::kJit) request = AddObject{header->sequence, header->object, kind};
  } else if (header->type == Type::kAddDebugFile && header->count == 0) {
    const auto kind = reader.take<FileKind>();
    if (kind >= FileKind::kDebugFile && kind <= FileKind::kSupplementary) {
      request = AddDebugFile{header->sequence, header->object, kind};
    }
  } else if (header->type == Type::kDropObject && header->count == 0) {
    request = DropObject{header->object};
  } else if (header->type == Type::kFindAllocator && header->count == 0) {
    request = FindAllocator{header->sequence, header->object};
  } else if (header->type == Type::kBuildUnwind && header->count == 0) {
    request = BuildUnwind{header->sequence, header->object};
  } else if (header->type == Type::kResolve && header->count > 0 && header->count <= kMaxOffsets) {
    Resolve resolve{header->sequence, header->object, {}};
    for (unsigned i = 0; i < header->count; ++i) resolve.offsets.push_back(reader.take<uint64_t>());
    request = std::move(resolve);
  }
  return reader.finished() ? request : std::nullopt;
}

std::optional<Reply> parse_reply(std::span<const std::byte> packet) {
  Reader reader{packet};
  const auto header = take_header(reader);
  if (!header) return std::nullopt;
  switch (header->type) {
    case Type::kHello:
      return reader.finished() && header->count == 0 ? std::optional<Reply>(Hello{}) : std::nullopt;
    case Type::kObjectInfo:
      return header->count == 0 ? parse_info(*header, reader) : std::nullopt;
    case Type::kNames:
      return parse_names(*header, reader);
    case Type::kAllocator:
      return parse_allocator(*header, reader);
    case Type::kUnwindRows:
      return parse_unwind_rows(*header, reader);
    default:
      return std::nullopt;
  }
}

IoStatus send_packet(int socket, std::span<const std::byte> packet, int file) {
  iovec data{const_cast<std::byte*>(packet.data()), packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (file >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &file, sizeof file);
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return IoStatus::kDone;
  // ETOOMANYREFS: too many files under way; they go when the other side has read.
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ETOOMANYREFS) {
    return IoStatus::kWouldBlock;
  }
  return errno == EPIPE || errno == ECONNRESET ? IoStatus::kClosed : IoStatus::kFailed;
}

Received receive_packet(int socket, bool want_file) {
  Received received;
  received.packet.resize(kMaxMessageBytes);
  iovec data{received.packet.data(), received.packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (want_file) {
    message.msg_control = control;
    message.msg_controllen = CMSG_LEN(sizeof(int));  // not CMSG_SPACE: its padding has room for a second file
  }
  ssize_t size = 0;
  do {
    size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (want_file && size >= 0) {
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
      int file = -1;
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(sizeof file)) {
        continue;
      }
      std::memcpy(&file, CMSG_DATA(part), sizeof file);
      received.file.reset(file);
    }
  }
  if (size < 0) {
    const bool later = errno == EAGAIN || errno == EWOULDBLOCK;
    received.status = later ? IoStatus::kWouldBlock : errno == ECONNRESET ? IoStatus::kClosed : IoStatus::kFailed;
  } else if (size == 0) {
    received.status = IoStatus::kClosed;  // empty packets are not in the protocol
  } else {
    received.status = (message.msg_flags & MSG_TRUNC) != 0 ? IoStatus::kFailed : IoStatus::kDone;
  }
  received.packet.resize(received.status == IoStatus::kDone ? static_cast<size_t>(size) : 0);
  return received;
}

std::string clean_name(std::string_view name) {
  static constexpr std::string_view kCut = "...";
  std::string clean;
  clean.reserve(std::min(name.size(), kMaxNameBytes));
  while (!name.empty()) {
    const size_t length = utf8_length(name);
    const unsigned char first = static_cast<unsigned char>(name.front());
    const bool bad = length == 0 || first < 0x20 || first == 0x7f || first == ';';
    const size_t taken = bad ? 1 : length;
    const size_t room = kMaxNameBytes - (name.size() > kMaxNameBytes - clean.size() ? kCut.size() : 0);
    if (clean.size() + taken > room) return clean.append(kCut);
    clean += bad ? std::string_view("?") : name.substr(0, length);
    name.remove_prefix(taken);
  }
  return clean;
}

}  // namespace stackwatch::protocol
