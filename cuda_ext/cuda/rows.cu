#include "cuda/rows.h"
#include "cuda/kernels/rows.h"

namespace vision3d::cuda {
namespace {

template <typename Op, typename T>
__global__ void forward_kernel(const T* in, T* out, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i < count) bodies::row_forward<Op>(in, out, i);
}

template <typename Op, typename T>
__global__ void vjp_kernel(const T* in, const T* out, const T* v_out, T* v_in, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i < count) bodies::row_vjp<Op>(in, out, v_out, v_in, i);
}

}  // namespace

template <typename Op, typename T>
void rows_forward(const Stream& where, const T* in, T* out, int64_t count) {
    launch(Op::NAME, where, blocks_of(count), THREADS, forward_kernel<Op, T>, in, out, count);
}

template <typename Op, typename T>
void rows_vjp(const Stream& where, const T* in, const T* out, const T* v_out, T* v_in, int64_t count) {
    launch(Op::NAME, where, blocks_of(count), THREADS, vjp_kernel<Op, T>, in, out, v_out, v_in, count);
}

#define V3D_INSTANTIATE(Op, T)                                                  \
    template void rows_forward<rows::Op>(const Stream&, const T*, T*, int64_t); \
    template void rows_vjp<rows::Op>(const Stream&, const T*, const T*, const T*, T*, int64_t);
#define V3D_INSTANTIATE_ALL(T)          \
    V3D_INSTANTIATE(QuatToRotmat, T)    \
    V3D_INSTANTIATE(RotmatToQuat, T)    \
    V3D_INSTANTIATE(GramSchmidt, T)     \
    V3D_INSTANTIATE(So3Exp, T)          \
    V3D_INSTANTIATE(So3Log, T)          \
    V3D_INSTANTIATE(NearestRotation, T) \
    V3D_INSTANTIATE(SkinJoint, T)
V3D_INSTANTIATE_ALL(float)
V3D_INSTANTIATE_ALL(double)

}  // namespace vision3d::cuda
