#pragma once
#include "cuda/launch.h"
#include "vision3d/boxes.h"

namespace vision3d::cuda {

template <typename T> void box_iou(const Stream& where, const boxes::IouArgs<T>& args);
template <typename T> void box_iou_vjp(const Stream& where, const boxes::IouVjpArgs<T>& args);
template <typename T> void box_nms(const Stream& where, const boxes::NmsArgs<T>& args);

}  // namespace vision3d::cuda
