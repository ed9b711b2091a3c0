#include "cuda/kernels/project.h"
#include "cuda/splats.h"

namespace vision3d::cuda {
namespace {

template <int MODEL, bool COVARS, typename T>
__global__ void __launch_bounds__(THREADS) project_kernel(ProjectArgs<T> args, int chunks) {
    each_row(chunks, args.count, [&](int64_t image, int64_t id) { bodies::project<MODEL, COVARS>(args, image, id); });
}

template <int MODEL, bool COVARS, typename T>
__global__ void __launch_bounds__(PAIR_CHUNK) project_vjp_kernel(ProjectVjpArgs<T> args) {
    bodies::project_vjp<MODEL, COVARS>(Block(), args);
}

template <int DEGREE, typename T>
__global__ void __launch_bounds__(PAIR_CHUNK) sh_colors_kernel(ShArgs<T> args) {
    bodies::sh_colors<DEGREE>(Block(), args);
}

template <int DEGREE, typename T>
__global__ void __launch_bounds__(PAIR_CHUNK) sh_colors_vjp_kernel(ShArgs<T> args) {
    bodies::sh_colors_vjp<DEGREE>(Block(), args);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) project_2dgs_kernel(Project2dgsArgs<T> args, int chunks) {
    each_row(chunks, args.count, [&](int64_t image, int64_t id) { bodies::project_2dgs(args, image, id); });
}

template <typename T>
__global__ void __launch_bounds__(PAIR_CHUNK) project_2dgs_vjp_kernel(Project2dgsVjpArgs<T> args) {
    bodies::project_2dgs_vjp(Block(), args);
}

}  // namespace

template <typename T>
void project(const Stream& where, const ProjectArgs<T>& args) {
    const int64_t chunks = blocks_of(args.count);
    with_camera(args.model, args.covars != nullptr, [&](auto model, auto covars) {
        launch("project", where, args.batches * args.cameras * chunks, THREADS, project_kernel<model(), covars(), T>, args, int(chunks));
    });
}

template <typename T>
void project_vjp(const Stream& where, const ProjectVjpArgs<T>& args) {
    const ProjectArgs<T>& f = args.forward;
    with_camera(f.model, f.covars != nullptr, [&](auto model, auto covars) {
        launch("project_vjp", where, f.batches * f.cameras * args.chunks, PAIR_CHUNK, project_vjp_kernel<model(), covars(), T>, args);
    });
}

template <typename T>
void sh_colors(const Stream& where, const ShArgs<T>& args) {
    with_degree(args.degree, [&](auto degree) {
        launch("sh_colors", where, args.images * args.chunks, PAIR_CHUNK, sh_colors_kernel<degree(), T>, args);
    });
}

template <typename T>
void sh_colors_vjp(const Stream& where, const ShArgs<T>& args) {
    with_degree(args.degree, [&](auto degree) {
        launch("sh_colors_vjp", where, args.images * args.chunks, PAIR_CHUNK, sh_colors_vjp_kernel<degree(), T>, args);
    });
}

template <typename T>
void project_2dgs(const Stream& where, const Project2dgsArgs<T>& args) {
    const int64_t chunks = blocks_of(args.count);
    launch("project_2dgs", where, args.batches * args.cameras * chunks, THREADS, project_2dgs_kernel<T>, args, int(chunks));
}

template <typename T>
void project_2dgs_vjp(const Stream& where, const Project2dgsVjpArgs<T>& args) {
    const int64_t images = args.forward.batches * args.forward.cameras;
    launch("project_2dgs_vjp", where, images * args.chunks, PAIR_CHUNK, project_2dgs_vjp_kernel<T>, args);
}

#define V3D_INSTANTIATE(T)                                                \
    template void project(const Stream&, const ProjectArgs<T>&);          \
    template void project_vjp(const Stream&, const ProjectVjpArgs<T>&);   \
    template void sh_colors(const Stream&, const ShArgs<T>&);             \
    template void sh_colors_vjp(const Stream&, const ShArgs<T>&);         \
    template void project_2dgs(const Stream&, const Project2dgsArgs<T>&); \
    template void project_2dgs_vjp(const Stream&, const Project2dgsVjpArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)

}  // namespace vision3d::cuda
