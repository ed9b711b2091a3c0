#include "cuda/host_skin.h"

#include <algorithm>
#include "cuda/kernels/skin.h"

namespace vision3d::host {

template <typename T>
void skin_vertices(const skin::Args<T>& args, int mode) {
    skin::with_mode(mode, [&](auto m) {
        for (int64_t b = 0; b < args.batch; ++b)
            for (int64_t vertex = 0; vertex < args.vertices_count; ++vertex) bodies::skin_vertex<decltype(m)::value>(args, b, vertex);
    });
}

template <typename T>
void skin_vertices_vjp(const skin::VjpArgs<T>& args, int mode) {
    std::fill(args.v_rows, args.v_rows + args.batch * args.joints * skin::ROW, T(0));
    skin::with_mode(mode, [&](auto m) {
        constexpr int THREADS = 256;
        for (int64_t block = 0; block * THREADS < args.vertices_count; ++block)
            bodies::skin_vjp<decltype(m)::value>(Block{block, THREADS}, args);
    });
}

template void skin_vertices(const skin::Args<float>&, int);
template void skin_vertices(const skin::Args<double>&, int);
template void skin_vertices_vjp(const skin::VjpArgs<float>&, int);
template void skin_vertices_vjp(const skin::VjpArgs<double>&, int);

}  // namespace vision3d::host
