#include "bindings/images.h"
#include "cpu/adam.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Vectors {
    template <typename W, typename T>
    static void ssim(const W&, const SsimImage<T>& image, T*) {
        cpu::ssim(image);
    }
    template <typename W, typename T>
    static void ssim_vjp(const W&, const SsimImageVjp<T>& image, T*) {
        cpu::ssim_vjp(image);
    }
    template <typename W, typename... Args>
    static void adam_step(const W&, const Args&... args) {
        cpu::adam_step(args...);
    }
};

}  // namespace

void bind_images(nb::module_& m) {
    bind_images<CpuTarget<float>, Vectors>(m);
    bind_images<CpuTarget<double>, Vectors>(m);
    define(m, "all_finite", "values", [](In<CpuTarget<float>, 1> values) {
        nb::gil_scoped_release release;
        return cpu::all_finite(values.data(), int64_t(values.shape(0)));
    });
}
