// SPDX-License-Identifier: Apache-2.0
#include "bpf/unwind_maps.h"

#include <bpf/bpf.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>

#include "bpf/abi.h"
#include "bpf/bpf_support.h"
#include "bpf/unwind_writer.h"

namespace stackwatch {
namespace {

constexpr const char* kWhat = "make the maps for unwinding";
/// What one map takes beside its values.
constexpr uint64_t kMapOverheadBytes = 512;

static_assert(static_cast<int>(UnwindKind::kUnknown) == abi::kRuleUnknown);
static_assert(static_cast<int>(UnwindKind::kStackDerefNext) == abi::kRuleStackDerefNext);
static_assert(static_cast<int>(UnwindKind::kPlt) == abi::kRulePlt);
static_assert(static_cast<int>(FrameKind::kAt) == abi::kFrameAt);
static_assert(static_cast<int>(UnwindMapping::Kind::kPending) == abi::kUnwindPending);
static_assert(static_cast<int>(UnwindMapping::Kind::kByTable) == abi::kUnwindByTable);

UniqueFd make_array(const char* name, uint32_t value_bytes, uint32_t entries) {
  bpf_map_create_opts options{};
  options.sz = sizeof(options);
  options.map_flags = BPF_F_INNER_MAP;
  return UniqueFd(bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t), value_bytes, entries, &options));
}

UniqueFd make_outer(const char* name, uint32_t entries, int inner) {
  bpf_map_create_opts options{};
  options.sz = sizeof(options);
  options.inner_map_fd = static_cast<uint32_t>(inner);
  return UniqueFd(
      bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, name, sizeof(uint32_t), sizeof(uint32_t), entries, &options));
}

/// The tree of blocks of a table, the root first.
struct Tree {
  std::vector<abi::unwind_block> blocks;
  uint16_t depth = 1;
};

void fill(abi::unwind_block& block, std::span<const abi::unwind_entry> entries) {
  std::ranges::fill(block.entries, abi::unwind_entry{std::numeric_limits<uint32_t>::max(), abi::kRuleUnknown});
  std::ranges::copy(entries, block.entries);
  for (size_t i = 0; i < abi::kUnwindPivots; ++i) {
    block.pivots[i] = block.entries[i * abi::kUnwindFanOut / abi::kUnwindPivots].address;
  }
}

Tree make_tree(std::span<const UnwindRow> rows) {
  std::vector<std::vector<abi::unwind_entry>> levels(1);  // leaves first
  for (const UnwindRow& row : rows) levels[0].push_back({row.address, row.rule});
  while (levels.back().size() > abi::kUnwindFanOut) {
    std::vector<abi::unwind_entry> above;
    for (size_t i = 0; i < levels.back().size(); i += abi::kUnwindFanOut)
      above.push_back({levels.back()[i].address, 0});
    levels.push_back(std::move(above));
  }
  Tree tree;
  tree.depth = static_cast<uint16_t>(levels.size());
  for (size_t level = levels.size(); level-- > 0;) {
    std::vector<abi::unwind_entry>& entries = levels[level];
    const size_t count = std::max<size_t>(1, (entries.size() + abi::kUnwindFanOut - 1) / abi::kUnwindFanOut);
    const auto below = static_cast<uint32_t>(tree.blocks.size() + count);
    if (level > 0) {
      for (size_t i = 0; i < entries.size(); ++i) entries[i].value = below + static_cast<uint32_t>(i);
    }
    for (size_t i = 0; i < count; ++i) {
      const size_t first = i * abi::kUnwindFanOut;
      fill(tree.blocks.emplace_back(),
           std::span(entries).subspan(first, std::min<size_t>(abi::kUnwindFanOut, entries.size() - first)));
    }
  }
  return tree;
}

}  // namespace

UnwindMaps::~UnwindMaps() = default;

int UnwindMaps::spaces_fd() const { return writer_->spaces(); }
int UnwindMaps::tables_fd() const { return writer_->tables(); }
void UnwindMaps::wait_until_written() { writer_->wait_idle(); }

Result<std::shared_ptr<UnwindMaps>> UnwindMaps::create() {
  if (auto possible = check_bpf_possible(); !possible) return Failure(possible.error());
  const LibbpfMessages messages;
  std::shared_ptr<UnwindMaps> maps(new UnwindMaps());
  maps->wanted_event_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!maps->wanted_event_) return fail_errno(kWhat, errno);
  UniqueFd space = make_array("unwind_space", sizeof(abi::unwind_mapping), 1);
  UniqueFd table = make_array("unwind_table", sizeof(abi::unwind_block), 1);
  if (!space || !table) return fail_bpf(kWhat, errno, messages);
  UniqueFd spaces = make_outer("unwind_spaces", abi::kUnwindSpaces, space.get());
  UniqueFd tables = make_outer("unwind_tables", abi::kUnwindTables, table.get());
  if (!spaces || !tables) return fail_bpf(kWhat, errno, messages);
  // Whoever still has the number of a table that is gone finds that nothing is known there.
  abi::unwind_block nothing{};
  for (abi::unwind_entry& entry : nothing.entries) entry.value = abi::kRuleUnknown;
  const uint32_t first = 0;
  if (bpf_map_update_elem(table.get(), &first, &nothing, BPF_ANY) != 0) return fail_bpf(kWhat, errno, messages);
  maps->map_bytes_ = map_memory_bytes(spaces.get()) + map_memory_bytes(tables.get());
  maps->writer_ = std::make_unique<UnwindWriter>(UnwindWriter::Outer{std::move(spaces), std::move(space)},
                                                 UnwindWriter::Outer{std::move(tables), std::move(table)});
  for (uint32_t i = 0; i < abi::kUnwindSpaces; ++i) maps->free_slots_.push_back(i);
  for (uint32_t i = 0; i < abi::kUnwindTables; ++i) maps->free_tables_.push_back(i);
  return maps;
}

UnwindMaps::Place UnwindMaps::use(const ProcessKey& process, int32_t pid_in_ns, ExecId exec) {
  auto found = by_process_.find(process);
  if (found == by_process_.end()) {
    if (free_slots_.empty()) return {};
    found = by_process_.try_emplace(process).first;
    found->second.slot = free_slots_.front();
    free_slots_.pop_front();
    found->second.generation = ++generations_;
    found->second.pid_in_ns = pid_in_ns;
    found->second.exec_id = exec.value;
    want({process, pid_in_ns, exec});
  }
  ++found->second.users;
  return {found->second.slot + 1, found->second.generation};
}

void UnwindMaps::release(const ProcessKey& process) {
  const auto found = by_process_.find(process);
  if (found == by_process_.end() || --found->second.users > 0) return;
  writer_->put_space(found->second.slot, {});
  free_slots_.push_back(found->second.slot);
  map_bytes_ -= found->second.bytes;
  by_process_.erase(found);
  std::erase_if(wanted_, [&](const Wanted& wanted) { return wanted.process == process; });
  released_.push_back(process);
}

void UnwindMaps::seen(const ProcessKey& process, uint64_t exec_id, bool missed) {
  const auto found = by_process_.find(process);
  if (found == by_process_.end()) return;
  const bool other_program = exec_id != 0 && exec_id != found->second.exec_id;
  if (!missed && !other_program) return;
  found->second.exec_id = exec_id;
  if (std::ranges::find(wanted_, process, &Wanted::process) != wanted_.end()) return;
  want({process, found->second.pid_in_ns, ExecId{exec_id}});
}

void UnwindMaps::want(Wanted wanted) {
  wanted_.push_back(wanted);
  ::eventfd_write(wanted_event_.get(), 1);
}

std::vector<UnwindMaps::Wanted> UnwindMaps::take_wanted() {
  eventfd_t ignored = 0;
  ::eventfd_read(wanted_event_.get(), &ignored);
  return std::exchange(wanted_, {});
}

Result<uint32_t> UnwindMaps::add_table(std::span<const UnwindRow> rows) {
  static constexpr const char* kTable = "load an unwind table";
  if (rows.size() > kMaxUnwindRows) return fail(kTable, "it is too large");
  const Tree tree = make_tree(rows);
  const uint64_t bytes = tree.blocks.size() * sizeof(abi::unwind_block) + kMapOverheadBytes;
  if (free_tables_.empty() || map_bytes_ + bytes > kMaxUnwindMapBytes) return fail(kTable, "there is no room for more");
  UniqueFd map = make_array("unwind_table", sizeof(abi::unwind_block), static_cast<uint32_t>(tree.blocks.size()));
  if (!map) return fail_errno(kTable, errno);
  for (uint32_t i = 0; i < tree.blocks.size(); ++i) {
    if (bpf_map_update_elem(map.get(), &i, &tree.blocks[i], BPF_ANY) != 0) return fail_errno(kTable, errno);
  }
  const uint32_t number = free_tables_.front();
  writer_->put_table(number, std::move(map));
  free_tables_.pop_front();
  table_sizes_[number] = {bytes, tree.depth};
  map_bytes_ += bytes;
  return number;
}

// Its number goes to the end of the queue: who still has it in a mapping finds nothing there for a long time.
void UnwindMaps::drop_table(uint32_t table) {
  const auto found = table_sizes_.find(table);
  if (found == table_sizes_.end()) return;
  writer_->put_table(table, {});
  map_bytes_ -= found->second.bytes;
  table_sizes_.erase(found);
  free_tables_.push_back(table);
}

Result<void> UnwindMaps::set_space(const ProcessKey& process, ExecId exec, std::span<const UnwindMapping> mappings,
                                   uint64_t code_bytes) {
  static constexpr const char* kSpace = "load the mappings of a process";
  const auto found = by_process_.find(process);
  if (found == by_process_.end()) return {};
  Space& space = found->second;
  mappings = mappings.first(std::min<size_t>(mappings.size(), abi::kUnwindMostMappings));
  const auto entries = static_cast<uint32_t>(mappings.size() + 1);
  UniqueFd map = make_array("unwind_space", sizeof(abi::unwind_mapping), entries);
  if (!map) return fail_errno(kSpace, errno);
  abi::unwind_mapping entry{};
  entry.start = exec.value;
  entry.end = space.generation;
  static const auto kPageBytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  entry.base = code_bytes / kPageBytes;
  entry.depth = static_cast<uint16_t>(std::bit_floor(mappings.size()));
  for (uint32_t i = 0; i < entries; ++i) {
    if (i > 0) {
      const UnwindMapping& mapping = mappings[i - 1];
      const auto table = table_sizes_.find(mapping.table);
      const bool gone = mapping.kind == UnwindMapping::Kind::kByTable && table == table_sizes_.end();
      entry = {mapping.start,
               mapping.end,
               mapping.base,
               mapping.table,
               static_cast<uint16_t>(gone ? UnwindMapping::Kind::kPending : mapping.kind),
               table != table_sizes_.end() ? table->second.depth : uint16_t{0}};
    }
    if (bpf_map_update_elem(map.get(), &i, &entry, BPF_ANY) != 0) return fail_errno(kSpace, errno);
  }
  writer_->put_space(space.slot, std::move(map));
  const uint64_t bytes = entries * sizeof(abi::unwind_mapping) + kMapOverheadBytes;
  map_bytes_ += bytes - space.bytes;
  space.bytes = bytes;
  space.exec_id = exec.value;
  return {};
}

}  // namespace stackwatch
