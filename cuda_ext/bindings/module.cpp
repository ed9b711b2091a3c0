#include <cstdlib>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace nb = nanobind;
void bind_boxes(nb::module_& m);
void bind_expansion(nb::module_& m);
void bind_groups(nb::module_& m);
void bind_images(nb::module_& m);
void bind_meshes(nb::module_& m);
void bind_mpm(nb::module_& m);
void bind_rows(nb::module_& m);
void bind_scans(nb::module_& m);
void bind_skin(nb::module_& m);
void bind_layers(nb::module_& m);
void bind_sparse(nb::module_& m);
void bind_splats(nb::module_& m);
#ifdef VISION3D_CUDA
void bind_cuda(nb::module_& m);
#endif

NB_MODULE(_native, m) {
#ifdef VISION3D_CUDA
    m.attr("has_cuda") = true;
#else
    m.attr("has_cuda") = false;
#endif
    // Buffers of a few MB are allocated and freed at every step; by default, glibc returns them to the system each time, and
    // allocating them again costs more than the kernels that fill them.
    m.def("keep_freed_memory", [] {
#if defined(__GLIBC__)
        mallopt(M_MMAP_THRESHOLD, 256 << 20);
        mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
    });
    m.def("set_num_threads", &vision3d::set_num_threads);
    vision3d::kernels();  // selected now: a fork during the first selection would leave it locked in the child
    m.def("isa", [] { return std::string(vision3d::kernels().name); });
    m.def("available_isas", &vision3d::available_isas);
    m.def("set_isa", &vision3d::set_isa);
    bind_boxes(m);
    bind_expansion(m);
    bind_groups(m);
    bind_images(m);
    bind_splats(m);
    bind_rows(m);
    bind_meshes(m);  // after the splats, which create the submodule of the kernel bodies
    bind_mpm(m);
    bind_scans(m);
    bind_skin(m);
    bind_layers(m);
    bind_sparse(m);
#ifdef VISION3D_CUDA
    bind_cuda(m);
#endif
}
