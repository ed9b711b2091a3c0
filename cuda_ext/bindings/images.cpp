#include "bindings/images.h"
#include "cpu/adam.h"
#include "cpu/noise.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Vectors {
    template <typename W, typename T>
    static void ssim(const W&, const SsimImage<T>& image) {
        cpu::ssim(image);
    }
    template <typename W, typename T>
    static void ssim_vjp(const W&, const SsimImageVjp<T>& image) {
        cpu::ssim_vjp(image);
    }
    template <typename W, typename... Args>
    static void adam_step(const W&, const Args&... args) {
        cpu::adam_step(args...);
    }
    template <typename W, typename T>
    static void add_noise(const W&, const NoiseArgs<T>& args) {
        cpu::add_noise(args);
    }
};

}  // namespace

void bind_images(nb::module_& m) {
    bind_images<CpuTarget<float>, Vectors>(m);
    bind_images<CpuTarget<double>, Vectors>(m);
    define(m, "normals", "seed step out", [](uint64_t seed, uint64_t step, Out<CpuTarget<float>, 2> out, int, uint64_t) {
        check("out", out, {int64_t(out.shape(0)), 3});
        nb::gil_scoped_release release;
        cpu::normals(seed, step, int64_t(out.shape(0)), out.data());
    });
    define(m, "all_finite", "values", [](In<CpuTarget<float>, 1> values) {
        nb::gil_scoped_release release;
        return cpu::all_finite(values.data(), int64_t(values.shape(0)));
    });
}
