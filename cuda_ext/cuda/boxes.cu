#include "cuda/boxes.h"
#include "cuda/kernels/block.h"

namespace vision3d::cuda {
namespace {

using boxes::SIZE;
constexpr int BITS = 64;

V3D_BODY int64_t thread_of_grid() { return blockIdx.x * int64_t(blockDim.x) + threadIdx.x; }

template <typename T>
__global__ void box_iou_kernel(boxes::IouArgs<T> args) {
    const int64_t n = thread_of_grid();
    if (n >= (args.is_paired ? args.rows : args.rows * args.columns)) return;
    const int64_t i = args.is_paired ? n : n / args.columns, j = args.is_paired ? n : n % args.columns;
    args.out[n] = T(boxes::iou(boxes::read(args.first + SIZE * i), boxes::read(args.second + SIZE * j), args.is_3d));
}

template <typename T>
__global__ void box_iou_vjp_kernel(boxes::IouVjpArgs<T> args) {
    const int64_t n = thread_of_grid();
    if (n < args.rows + args.columns) boxes::box_vjp(args, n < args.rows ? n : n - args.rows, n >= args.rows);
}

// Bit j of row i: box i suppresses the later box j, if box i is kept. A thread fills one word.
template <typename T>
__global__ void box_nms_pairs_kernel(boxes::NmsArgs<T> args) {
    const int64_t n = thread_of_grid(), words = (args.count + BITS - 1) / BITS;
    if (n >= args.count * words) return;
    const int64_t i = n / words, first = n % words * BITS;
    const boxes::Box own = boxes::read(args.boxes + SIZE * i);
    uint64_t word = 0;
    for (int bit = 0; bit < BITS; ++bit) {
        const int64_t j = first + bit;
        if (j > i && j < args.count && args.groups[i] == args.groups[j] &&
            boxes::iou(own, boxes::read(args.boxes + SIZE * j), args.is_3d) > args.threshold)
            word |= uint64_t(1) << bit;
    }
    args.scratch[n] = word;
}

// One block: the boxes in order, the words of suppressed boxes in parallel.
template <typename T>
__global__ void box_nms_sweep_kernel(boxes::NmsArgs<T> args) {
    const Block block;
    const int64_t words = (args.count + BITS - 1) / BITS;
    uint64_t* suppressed = args.scratch + args.count * words;
    int64_t kept = 0;
    for (int64_t w = threadIdx.x; w < words; w += block.threads) suppressed[w] = 0;
    for (int64_t i = 0; i < args.count; ++i) {
        block.barrier();
        const bool is_kept = kept < args.max_kept && !(suppressed[i / BITS] >> (i % BITS) & 1);
        block.barrier();
        if (threadIdx.x == 0) args.kept[i] = is_kept;
        if (!is_kept) continue;
        ++kept;
        for (int64_t w = threadIdx.x; w < words; w += block.threads) suppressed[w] |= args.scratch[i * words + w];
    }
}

}  // namespace

template <typename T>
void box_iou(const Stream& where, const boxes::IouArgs<T>& args) {
    launch("box_iou", where, blocks_of(args.is_paired ? args.rows : args.rows * args.columns), THREADS, box_iou_kernel<T>, args);
}

template <typename T>
void box_iou_vjp(const Stream& where, const boxes::IouVjpArgs<T>& args) {
    launch("box_iou_vjp", where, blocks_of(args.rows + args.columns), THREADS, box_iou_vjp_kernel<T>, args);
}

template <typename T>
void box_nms(const Stream& where, const boxes::NmsArgs<T>& args) {
    const int64_t words = (args.count + BITS - 1) / BITS;
    launch("box_nms_pairs", where, blocks_of(args.count * words), THREADS, box_nms_pairs_kernel<T>, args);
    launch("box_nms_sweep", where, args.count > 0, THREADS, box_nms_sweep_kernel<T>, args);
}

template void box_iou(const Stream&, const boxes::IouArgs<float>&);
template void box_iou(const Stream&, const boxes::IouArgs<double>&);
template void box_iou_vjp(const Stream&, const boxes::IouVjpArgs<float>&);
template void box_iou_vjp(const Stream&, const boxes::IouVjpArgs<double>&);
template void box_nms(const Stream&, const boxes::NmsArgs<float>&);
template void box_nms(const Stream&, const boxes::NmsArgs<double>&);

}  // namespace vision3d::cuda
