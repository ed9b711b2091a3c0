#include <nanobind/stl/string.h>
#include "bindings/cuda.h"
#include "bindings/groups.h"
#include "bindings/images.h"
#include "bindings/rows.h"
#include "cuda/adam.h"
#include "cuda/group_kernel.h"
#include "cuda/noise.h"
#include "cuda/rows.h"
#include "cuda/ssim.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

void bind_boxes_cuda(nb::module_& m);
void bind_expansion_cuda(nb::module_& m);
void bind_meshes_cuda(nb::module_& m);
void bind_mpm_cuda(nb::module_& m);
void bind_scans_cuda(nb::module_& m);
void bind_skin_cuda(nb::module_& m);
void bind_sparse_cuda(nb::module_& m);
void bind_splats_cuda(nb::module_& m);

namespace {

struct GpuImages {
    template <typename W, typename T>
    static void ssim(const W& target, const SsimImage<T>& image) {
        cuda::ssim(image, target.where);
    }
    template <typename W, typename T>
    static void ssim_vjp(const W& target, const SsimImageVjp<T>& image) {
        cuda::ssim_vjp(image, target.where);
    }
    template <typename W, typename... Args>
    static void adam_step(const W& target, const Args&... args) {
        cuda::adam_step(args..., target.where);
    }
    template <typename W, typename T>
    static void add_noise(const W& target, const NoiseArgs<T>& args) {
        cuda::add_noise(args, target.where);
    }
};

struct GpuRows {
    template <typename Op, typename W, typename T>
    static void forward(const W& target, int, const T* in, T* out, int64_t count) {
        cuda::rows_forward<Op>(target.where, in, out, count);
    }
    template <typename Op, typename W, typename T>
    static void vjp(const W& target, int, const T* in, const T* out, const T* v_out, T* v_in, int64_t count) {
        cuda::rows_vjp<Op>(target.where, in, out, v_out, v_in, count);
    }
};

template <typename T>
void bind(nb::module_& m) {
    bind_images<CudaTarget<T>, GpuImages>(m);
    bind_group_kernel<CudaTarget<T>>(m, [](const GroupKernelArgs<T>& args, const cuda::Stream& where) { cuda::group_kernel(args, where); });
    bind_rows<CudaTarget<T>, GpuRows>(m);
}

}  // namespace

void bind_cuda(nb::module_& m) {
    m.def("cuda_device_count", [] {
        int count = 0;
        cuda::check(cudaGetDeviceCount(&count), "no usable device");
        return count;
    }, "Number of GPUs. Raises RuntimeError with the reason where the driver or the GPU is missing.");
    m.attr("cuda_version") = std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
    m.attr("cuda_architectures") = VISION3D_CUDA_ARCHITECTURES;
    m.def("cuda_problem", &cuda::problem, nb::arg("device"), "What keeps the kernels from running on a GPU; empty if they run.");
    define(m, "normals", "seed step out", [](uint64_t seed, uint64_t step, Out<CudaTarget<float>, 2> out, int device, uint64_t stream) {
        check("out", out, {int64_t(out.shape(0)), 3});
        nb::gil_scoped_release release;
        cuda::normals(seed, step, int64_t(out.shape(0)), out.data(), CudaTarget<float>(device, stream).where);
    });
    bind<float>(m);
    bind<double>(m);
    bind_boxes_cuda(m);
    bind_expansion_cuda(m);
    bind_splats_cuda(m);
    bind_meshes_cuda(m);
    bind_mpm_cuda(m);
    bind_scans_cuda(m);
    bind_skin_cuda(m);
    bind_sparse_cuda(m);
}
