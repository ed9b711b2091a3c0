#include "bindings/cuda.h"
#include "bindings/groups.h"
#include "bindings/rows.h"
#include "cuda/adam.h"
#include "cuda/group_kernel.h"
#include "cuda/rows.h"
#include "cuda/ssim.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

void bind_meshes_cuda(nb::module_& m);
void bind_mpm_cuda(nb::module_& m);
void bind_skin_cuda(nb::module_& m);
void bind_splats_cuda(nb::module_& m);

namespace {

template <typename W>
SsimSize<typename W::Scalar> size_of(const In<W, 4>& a, const In<W, 1>& weights, int64_t margin) {
    const int64_t window = int64_t(weights.shape(0)), height = int64_t(a.shape(1)), width = int64_t(a.shape(2));
    return {int64_t(a.shape(0)),
            height,
            width,
            int64_t(a.shape(3)),
            height + 2 * margin - window + 1,
            width + 2 * margin - window + 1,
            margin,
            int(window),
            weights.data()};
}

// As bindings/images.cpp, with scratch memory for the column sums.
template <typename W>
void bind_ssim(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "ssim", "a b weights margin c1 c2 values derivatives scratch",
           [](In<W, 4> a, In<W, 4> b, In<W, 1> weights, int64_t margin, double c1, double c2, Out<W, 4> values, Out<W, 5> derivatives,
              Out<W, 5> scratch, int device, uint64_t stream) {
        SsimImage<T> s{size_of<W>(a, weights, margin), a.data(), b.data(), T(c1), T(c2), values.data(), nullptr, nullptr, nullptr, nullptr};
        check("scratch", scratch, {4, s.images, s.out_height, s.width, s.channels});
        if (derivatives.shape(0) == 4) {
            const int64_t map = s.images * s.out_height * s.out_width * s.channels;
            s.v_means_a = derivatives.data();
            s.v_means_b = derivatives.data() + map;
            s.v_squares = derivatives.data() + 2 * map;
            s.v_products = derivatives.data() + 3 * map;
        }
        nb::gil_scoped_release release;
        cuda::ssim(s, scratch.data(), W(device, stream).where);
    });

    define(m, "ssim_vjp", "a b weights margin v_values v_means v_squares v_products v_a scratch",
           [](In<W, 4> a, In<W, 4> b, In<W, 1> weights, int64_t margin, In<W, 4> v_values, In<W, 4> v_means, In<W, 4> v_squares,
              In<W, 4> v_products, Out<W, 4> v_a, Out<W, 5> scratch, int device, uint64_t stream) {
        const SsimImageVjp<T> s{size_of<W>(a, weights, margin),
                                a.data(),
                                b.data(),
                                v_values.data(),
                                v_means.data(),
                                v_squares.data(),
                                v_products.data(),
                                v_a.data()};
        check("scratch", scratch, {3, s.images, s.height, s.out_width, s.channels});
        nb::gil_scoped_release release;
        cuda::ssim_vjp(s, scratch.data(), W(device, stream).where);
    });
}

template <typename W>
void bind_adam(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "adam_step", "param grad exp_avg exp_avg_sq visible learning_rate beta1 beta2 eps step",
           [](Out<W, 2> param, In<W, 2> grad, Out<W, 2> exp_avg, Out<W, 2> exp_avg_sq, MaybeIn<W, 1, bool> visible, double learning_rate,
              double beta1, double beta2, double eps, int64_t step, int device, uint64_t stream) {
        const AdamFactors<T> factors(learning_rate, beta1, beta2, eps, double(step));
        const auto* rows = visible ? reinterpret_cast<const uint8_t*>(visible->data()) : nullptr;
        nb::gil_scoped_release release;
        cuda::adam_step(param.data(), grad.data(), exp_avg.data(), exp_avg_sq.data(), rows, int64_t(param.shape(0)),
                        int64_t(param.shape(1)), factors, W(device, stream).where);
    });
}

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
    bind_ssim<CudaTarget<T>>(m);
    bind_adam<CudaTarget<T>>(m);
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
    bind<float>(m);
    bind<double>(m);
    bind_splats_cuda(m);
    bind_meshes_cuda(m);
    bind_mpm_cuda(m);
    bind_skin_cuda(m);
}
