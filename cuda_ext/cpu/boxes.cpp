#include "cpu/boxes.h"

#include <algorithm>
#include <vector>
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

constexpr int64_t CHUNK = 4096;  // pairs

template <typename T>
std::vector<boxes::Box> read_all(const T* values, int64_t count) {
    std::vector<boxes::Box> out(size_t(count), boxes::Box{});
    for (int64_t n = 0; n < count; ++n) out[size_t(n)] = boxes::read(values + boxes::SIZE * n);
    return out;
}

}  // namespace

template <typename T>
void box_iou(const boxes::IouArgs<T>& args) {
    const auto first = read_all(args.first, args.rows), second = read_all(args.second, args.columns);
    parallel_for(args.is_paired ? args.rows : args.rows * args.columns, CHUNK, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const size_t i = size_t(args.is_paired ? n : n / args.columns), j = size_t(args.is_paired ? n : n % args.columns);
            args.out[n] = T(boxes::iou(first[i], second[j], args.is_3d));
        }
    });
}

template <typename T>
void box_iou_vjp(const boxes::IouVjpArgs<T>& args) {
    const auto run = [&](bool of_second) {
        const int64_t count = of_second ? args.columns : args.rows, pairs = args.is_paired ? 1 : args.rows + args.columns - count;
        parallel_for(count, std::max<int64_t>(1, CHUNK / std::max<int64_t>(pairs, 1)), [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) boxes::box_vjp(args, n, of_second);
        });
    };
    run(false);
    run(true);
}

template <typename T>
void box_nms(const boxes::NmsArgs<T>& args) {
    const auto all = read_all(args.boxes, args.count);
    std::fill(args.kept, args.kept + args.count, uint8_t(1));
    int64_t kept = 0;
    for (int64_t i = 0; i < args.count; ++i) {
        if (kept == args.max_kept) args.kept[i] = 0;
        if (!args.kept[i]) continue;
        ++kept;
        parallel_for(args.count - i - 1, CHUNK, [&](int64_t begin, int64_t end) {
            for (int64_t j = i + 1 + begin; j < i + 1 + end; ++j)
                if (args.kept[j] && args.groups[i] == args.groups[j] &&
                    boxes::iou(all[size_t(i)], all[size_t(j)], args.is_3d) > args.threshold)
                    args.kept[j] = 0;
        });
    }
}

template void box_iou(const boxes::IouArgs<float>&);
template void box_iou(const boxes::IouArgs<double>&);
template void box_iou_vjp(const boxes::IouVjpArgs<float>&);
template void box_iou_vjp(const boxes::IouVjpArgs<double>&);
template void box_nms(const boxes::NmsArgs<float>&);
template void box_nms(const boxes::NmsArgs<double>&);

}  // namespace vision3d::cpu
