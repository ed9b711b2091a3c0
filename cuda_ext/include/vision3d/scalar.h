#pragma once
// Operations of the maths headers for one number at a time. A SIMD type provides its own (cpu/isa/simd.h), found by
// argument-dependent lookup; `bool` is the mask of a scalar.
#include <cmath>
#include <cstdint>
#include "vision3d/macros.h"

namespace vision3d {

V3D_HD float sqrt(float x) { return ::sqrtf(x); }
V3D_HD double sqrt(double x) { return ::sqrt(x); }
V3D_HD float rsqrt(float x) { return 1.f / ::sqrtf(x); }
V3D_HD double rsqrt(double x) { return 1. / ::sqrt(x); }
V3D_HD float rcp(float x) { return 1.f / x; }
V3D_HD double rcp(double x) { return 1. / x; }
V3D_HD float exp2(float x) { return ::exp2f(x); }
V3D_HD double exp2(double x) { return ::exp2(x); }
V3D_HD float log2(float x) { return ::log2f(x); }
V3D_HD double log2(double x) { return ::log2(x); }
V3D_HD void sincos(float x, float& s, float& c) {
    s = ::sinf(x);
    c = ::cosf(x);
}
V3D_HD void sincos(double x, double& s, double& c) {
    s = ::sin(x);
    c = ::cos(x);
}
V3D_HD float atan2(float y, float x) { return ::atan2f(y, x); }
V3D_HD double atan2(double y, double x) { return ::atan2(y, x); }
V3D_HD float exp(float x) { return ::expf(x); }
V3D_HD double exp(double x) { return ::exp(x); }
V3D_HD float log(float x) { return ::logf(x); }
V3D_HD double log(double x) { return ::log(x); }
V3D_HD float floor(float x) { return ::floorf(x); }
V3D_HD double floor(double x) { return ::floor(x); }
V3D_HD float ceil(float x) { return ::ceilf(x); }
V3D_HD double ceil(double x) { return ::ceil(x); }
V3D_HD float abs(float x) { return ::fabsf(x); }
V3D_HD double abs(double x) { return ::fabs(x); }
V3D_HD float min(float a, float b) { return a < b ? a : b; }
V3D_HD double min(double a, double b) { return a < b ? a : b; }
V3D_HD float max(float a, float b) { return a > b ? a : b; }
V3D_HD double max(double a, double b) { return a > b ? a : b; }
V3D_HD float fma(float a, float b, float c) { return a * b + c; }
V3D_HD double fma(double a, double b, double c) { return a * b + c; }
V3D_HD float fnma(float a, float b, float c) { return c - a * b; }
V3D_HD double fnma(double a, double b, double c) { return c - a * b; }
V3D_HD bool any(bool a) { return a; }
V3D_HD bool andnot(bool a, bool b) { return !a && b; }
V3D_HD float select(bool m, float a, float b) { return m ? a : b; }
V3D_HD double select(bool m, double a, double b) { return m ? a : b; }
V3D_HD float keep(bool m, float a) { return m ? a : 0.f; }
V3D_HD double keep(bool m, double a) { return m ? a : 0.; }

// The mask type of a number type, and the scalar type for constants.
template <typename T> struct Traits {
    using Mask = bool;
    using Scalar = T;
};

}  // namespace vision3d
