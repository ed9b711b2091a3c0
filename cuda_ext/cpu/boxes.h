#pragma once
#include "vision3d/boxes.h"

// Overlap of boxes on all cores; bitwise equal for any number of threads.
namespace vision3d::cpu {

template <typename T> void box_iou(const boxes::IouArgs<T>& args);
template <typename T> void box_iou_vjp(const boxes::IouVjpArgs<T>& args);
template <typename T> void box_nms(const boxes::NmsArgs<T>& args);

}  // namespace vision3d::cpu
