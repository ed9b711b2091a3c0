#include "cuda/host_skin.h"

#include <algorithm>
#include "cuda/kernels/skin.h"

namespace vision3d::host {

template <typename T>
void skin_vertices(const skin::Args<T>& args, int mode) {
    skin::with_mode(mode, [&](auto m) {
        for (int64_t n = 0; n < args.batch * args.vertices_count; ++n) bodies::skin_vertex<decltype(m)::value>(args, n);
    });
}

template <typename T>
void skin_vertices_vjp(const skin::VjpArgs<T>& args, int mode) {
    std::fill(args.v_rows, args.v_rows + args.batch * args.joints * skin::ROW, T(0));
    skin::with_mode(mode, [&](auto m) {
        for (int64_t v = 0; v < args.vertices_count; ++v) bodies::skin_vertex_vjp<decltype(m)::value>(args, v);
    });
}

template void skin_vertices(const skin::Args<float>&, int);
template void skin_vertices(const skin::Args<double>&, int);
template void skin_vertices_vjp(const skin::VjpArgs<float>&, int);
template void skin_vertices_vjp(const skin::VjpArgs<double>&, int);

}  // namespace vision3d::host
