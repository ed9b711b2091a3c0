#include "bindings/expansion.h"
#include "cpu/expansion.h"

using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Cpu {
    template <typename W, typename Args>
    static void run(const W&, const Args& args) {
        cpu::sampled_expansion(args);
    }
};

}  // namespace

void bind_expansion(nb::module_& m) {
    bind_expansion<CpuTarget<float>, Cpu>(m, cpu::expansion_padding<float>());
    bind_expansion<CpuTarget<double>, Cpu>(m, cpu::expansion_padding<double>());
}
