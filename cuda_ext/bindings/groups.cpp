#include "bindings/groups.h"
#include "cpu/group_kernel.h"

using namespace vision3d;

namespace {

template <typename T>
void bind(nanobind::module_& m) {
    arrays::bind_group_kernel<arrays::CpuTarget<T>>(m, [](const GroupKernelArgs<T>& args, int) { cpu::group_kernel(args); });
}

}  // namespace

void bind_groups(nanobind::module_& m) {
    bind<float>(m);
    bind<double>(m);
}
