#include "cpu/dispatch.h"

#include <atomic>
#include <stdexcept>

namespace vision3d {

#define V3D_DECLARE(isa)    \
    namespace isa {         \
    const Kernels& table(); \
    }
V3D_DECLARE(portable)
#ifdef V3D_HAS_avx2
V3D_DECLARE(avx2)
V3D_DECLARE(avx512)
#endif
#undef V3D_DECLARE

namespace {

std::vector<const Kernels*> runnable() {
    std::vector<const Kernels*> sets{&portable::table()};
#ifdef V3D_HAS_avx2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back(&avx2::table());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
        sets.push_back(&avx512::table());
#endif
    return sets;
}

std::atomic<const Kernels*>& chosen() {
    static std::atomic<const Kernels*> table{runnable().back()};
    return table;
}

}  // namespace

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Kernels* set : runnable()) names.emplace_back(set->name);
    return names;
}

void set_isa(const std::string& name) {
    std::string valid;
    for (const Kernels* set : runnable()) {
        if (name == set->name) {
            chosen().store(set);
            return;
        }
        valid += std::string(valid.empty() ? "" : ", ") + set->name;
    }
    throw std::invalid_argument("instruction set " + name + " does not run here; valid: " + valid);
}

}  // namespace vision3d
