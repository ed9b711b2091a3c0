#pragma once
#include <cstdint>
#include <vector>
#include "cpu/scratch.h"
#include "vision3d/mpm_args.h"

namespace vision3d::cpu {

// A part of a block whose particles belong to one body.
struct Segment {
    int body;
    int64_t begin, end;
};

// Blocks of 4 x 4 x 8 cells with particles. The particles of a block reach nodes from one before its first to seven (eleven along
// z) after it, as long as none has moved by a cell since sorting, so blocks of one color, which are two blocks apart, share no
// nodes.
struct Block {
    int at[3];
    int first_segment, last_segment;
};

class SortedParticles {
  public:
    static constexpr int SHIFTS[3] = {2, 2, 3};
    static constexpr int CELLS = 128;

    // Sorts rows and ids (body, motion and number of each particle) by block, body and cell.
    void sort(float* rows, int32_t* ids, int64_t stride, int64_t count, const mpm::Step<float>& step, int bodies);

    // Sorts if few adjacent particles are in the same cell; otherwise lists the segments of the current order, without blocks.
    void sort_if_mixed(float* rows, int32_t* ids, int64_t stride, int64_t count, const mpm::Step<float>& step, int bodies);

    const std::vector<Block>& blocks() const { return blocks_; }
    const std::vector<Segment>& segments() const { return segments_; }
    // Blocks of one of the eight colors.
    const std::vector<int>& colored(int color) const { return colors_[color]; }
    // All blocks of nodes within reach of particles, by number.
    const std::vector<int64_t>& active() const { return active_; }
    int64_t width(int axis) const { return widths_[axis]; }

  private:
    void list_blocks(int bodies);

    std::vector<Block> blocks_;
    std::vector<Segment> segments_;
    std::vector<int> colors_[8];
    std::vector<int64_t> active_;
    std::vector<int64_t> starts_;
    std::vector<uint8_t> is_active_;
    Scratch<int32_t> keys_, order_;
    int64_t widths_[3] = {0, 0, 0};
};

}  // namespace vision3d::cpu
