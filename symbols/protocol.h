// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/allocator.h"
#include "core/unique_fd.h"
#include "core/unwind_table.h"

/// What the daemon and the symbol worker say to each other, over a SOCK_SEQPACKET pair: one message per packet, a
/// Header and a body. The worker answers each request that wants an answer, in order, one at a time. Neither side
/// trusts the other: the daemon is what the worker must not endanger, and the worker may have been taken over by a
/// stranger's file. Both are of one build, so numbers are in native order and there is no negotiation.
namespace stackwatch::protocol {

/// Packets above this are refused. Small against a socket buffer (208 kB), so that a whole batch of names (split
/// where needed) is never the reason for a full one.
inline constexpr size_t kMaxMessageBytes = 32 * 1024;
/// Offsets in one request: a deep stack in one go, and a request stays around a kilobyte.
inline constexpr size_t kMaxOffsets = 128;
/// Longest name on the wire. Demangled template names have no natural end; past this nobody reads them.
inline constexpr size_t kMaxNameBytes = 1024;
/// 20 bytes is SHA-1, what linkers write; 64 is the longest that anybody has asked for.
inline constexpr size_t kMaxBuildIdBytes = 64;
inline constexpr size_t kMaxModuleBytes = 64;
/// Longest source path on the wire; a longer one keeps its end.
inline constexpr size_t kMaxFileBytes = 512;
/// Calls inlined at one place. With their files they still fit a packet.
inline constexpr size_t kMaxInlined = 16;
/// Longest name of a debug file: the kernel's longest path.
inline constexpr size_t kMaxLinkBytes = 4096;
/// Allocator functions of one object. The standard has 50 names, most of them aliases; the rest is for the places
/// where operator new may end.
inline constexpr size_t kMaxAllocatorPlaces = 256;

/// The worker finds its end of the pair at this descriptor.
inline constexpr int kWorkerSocket = 3;

inline constexpr uint32_t kMagic = 0x53577331;  // "SWs1"
inline constexpr uint32_t kKernelObject = 1;    ///< kallsyms; "offsets" are addresses
inline constexpr uint32_t kVdsoObject = 2;      ///< the worker's own vDSO; needs no kAddObject
inline constexpr uint32_t kFirstFileObject = 16;

enum class Type : uint16_t {
  kHello = 1,      ///< worker: is confined and ready to read
  kAddObject,      ///< daemon, with a file: here is object N (an ELF file, or kallsyms for kKernelObject); replaces
  kObjectInfo,     ///< worker: answer to kAddObject and kAddDebugFile
  kResolve,        ///< daemon: which functions are at these offsets of object N?
  kNames,          ///< worker: answer to kResolve, one or more packets, each offset answered exactly once
  kDropObject,     ///< daemon: object N is not needed any more; no answer
  kFindAllocator,  ///< daemon: where are the allocator functions of object N?
  kAllocator,      ///< worker: answer to kFindAllocator
  kAddDebugFile,   ///< daemon, with a file: what may be the separate debug file of object N
  kBuildUnwind,    ///< daemon: what is the unwind table of object N?
  kUnwindRows,     ///< worker: answer to kBuildUnwind, one or more packets
};

struct Header {
  uint32_t magic = kMagic;
  Type type{};
  uint16_t count = 0;  ///< elements in the body: offsets, names or places
  uint32_t sequence = 0;
  uint32_t object = 0;
};
static_assert(sizeof(Header) == 16);

enum class ObjectStatus : uint32_t {
  kReadable,
  kUnreadable,  ///< not ELF, broken, or too large
  kHidden,      ///< kallsyms without addresses
};

/// What a file is.
enum class FileKind : uint32_t {
  kElf,           ///< an ELF file, its debug information too; kallsyms for kKernelObject
  kElfSymbols,    ///< an ELF file whose debug information is to be left alone: it ended a worker
  kJit,           ///< a perf map or a jitdump; "offsets" are addresses of the process
  kDebugFile,     ///< of an object, found by its build-id
  kLinkedFile,    ///< of an object, found by its debug-link: its checksum must be right
  kSupplementary  ///< of dwz, for the debug information of an object
};

/// Which further file would tell more about an object.
enum class Wish : uint32_t { kNothing, kDebugFile, kSupplementary };

struct Hello {};

struct ObjectInfo {
  uint32_t sequence = 0;
  uint32_t object = 0;
  ObjectStatus status = ObjectStatus::kUnreadable;
  std::vector<std::byte> build_id;  ///< empty where there is none
  bool has_debug_info = false;
  Wish wish = Wish::kNothing;
  std::string link{};                ///< name of the file wished for as the object gives it; empty where it does not
  std::vector<std::byte> wish_id{};  ///< its build-id; empty where it is not known
};

enum class NameKind : uint16_t {
  kNone,         ///< nothing is known about the offset
  kSymbol,       ///< `name` is the function
  kUnwindEntry,  ///< no symbol, but call-frame information says that a function starts at `start`
};

/// A call that the compiler inlined, with where in its source the address is.
struct Inlined {
  std::string name;
  std::string file;  ///< empty where unknown
  uint32_t line = 0;
};

struct Name {
  uint16_t index = 0;  ///< of the offset in the request
  NameKind kind = NameKind::kNone;
  uint64_t start = 0;  ///< virtual address of the function's start in its object
  std::string name;
  std::string module;              ///< kernel only; empty for the kernel itself
  std::string file{};              ///< of the source; empty where unknown
  uint32_t line = 0;               ///< 0 where unknown
  std::vector<Inlined> inlined{};  ///< the calls inlined at the offset, outermost first
};

struct Names {
  uint32_t sequence = 0;
  uint32_t object = 0;
  std::vector<Name> names;
};

struct AddObject {
  uint32_t sequence = 0;
  uint32_t object = 0;
  FileKind kind = FileKind::kElf;  ///< one of the first three
};

/// Answered with an ObjectInfo: kReadable where it is of use, and what to look for next.
struct AddDebugFile {
  uint32_t sequence = 0;
  uint32_t object = 0;
  FileKind kind = FileKind::kDebugFile;  ///< one of the last three
};

struct Resolve {
  uint32_t sequence = 0;
  uint32_t object = 0;
  std::vector<uint64_t> offsets;
};

struct DropObject {
  uint32_t object = 0;
};

struct FindAllocator {
  uint32_t sequence = 0;
  uint32_t object = 0;
};

struct Allocator {
  uint32_t sequence = 0;
  uint32_t object = 0;
  bool uncounted_new = false;          ///< as in AllocatorObject
  std::vector<AllocatorPlace> places;  ///< each offset once
};

struct BuildUnwind {
  uint32_t sequence = 0;
  uint32_t object = 0;
};

/// A piece of an unwind table.
struct UnwindRows {
  uint32_t sequence = 0;
  uint32_t object = 0;
  bool last = false;  ///< with the rest of the table
  UnwindTable table;  ///< rows of this piece; the rest with the last one. No segments: there is no table
};

using Request = std::variant<AddObject, Resolve, DropObject, FindAllocator, AddDebugFile, BuildUnwind>;
using Reply = std::variant<Hello, ObjectInfo, Names, Allocator, UnwindRows>;
using Bytes = std::vector<std::byte>;

[[nodiscard]] Bytes encode(const Request& request);
[[nodiscard]] Bytes encode(const Hello& hello);
/// A build-id longer than kMaxBuildIdBytes is left out.
[[nodiscard]] Bytes encode(const ObjectInfo& info);
/// Places beyond kMaxAllocatorPlaces are left out.
[[nodiscard]] Bytes encode(const Allocator& allocator);
/// As many packets as it takes.
[[nodiscard]] std::vector<Bytes> encode_table(uint32_t sequence, uint32_t object, const UnwindTable& table);
/// Names and modules longer than their limits are cut. As many packets as it takes.
[[nodiscard]] std::vector<Bytes> encode(const Names& names);

/// Nothing where the packet is not exactly one well-formed message. (A name's index is in the range of some request,
/// below kMaxOffsets; whether it is in the range of *the* request is for the caller to check.)
[[nodiscard]] std::optional<Request> parse_request(std::span<const std::byte> packet);
[[nodiscard]] std::optional<Reply> parse_reply(std::span<const std::byte> packet);

enum class IoStatus { kDone, kWouldBlock, kClosed, kFailed };

struct Received {
  IoStatus status = IoStatus::kFailed;  ///< kFailed also for packets above kMaxMessageBytes
  Bytes packet;
  UniqueFd file;
};

/// Sends a packet, with a file where `file` is not negative (it stays the caller's). Blocks only if the socket does.
[[nodiscard]] IoStatus send_packet(int socket, std::span<const std::byte> packet, int file = -1);
/// Receives a packet. A file that comes along is dropped by the kernel unless `want_file`.
[[nodiscard]] Received receive_packet(int socket, bool want_file);

/// A name for people and for formats with separators: valid UTF-8, no control characters, no `;`; each offending
/// byte becomes `?`. At most kMaxNameBytes, a longer one ends in `...`.
[[nodiscard]] std::string clean_name(std::string_view name);

}  // namespace stackwatch::protocol
