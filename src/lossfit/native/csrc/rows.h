// From the scores of some rows to what the gap is made of, and back to their gradient.
//
// A group is as many rows as a vector has lanes, or fewer where they would leave the cache. Where there are many
// classes a vector holds classes of one row; where there are few, or the rows lie side by side in memory, it holds one
// class of all rows of the group. Either way the powers stay in a buffer between the way there and the way back.
#pragma once

#include <cstdlib>

#include "maths.h"
#include "request.h"

namespace {

// Sums of so many vectors are in float32, those of more in float64.
constexpr int BLOCK = 32;
constexpr int64_t FEW_CLASSES = 32;
constexpr int64_t GROUP_BYTES = 1 << 16;

// Differences of scores are made so much smaller while they are added up, so that a block of the largest stays finite.
constexpr float SHRINK = 1.0f / (2 * BLOCK);

struct Wanted {
    bool hard, mean, hit, among;
};

// What one pass tells of each row: with x_k = z_k - top, the top being the largest score of a rival.
struct Told {
    float own[W], top[W], lead[W];  // z_y, top, z_y - top
    float total[W];     // sum_{k != y} exp(x_k), or for the hard gap how many rivals tie
    float mean[W];      // sum_{k != y} w_k (z_k - z_y) / C
    float surprise[W];  // -sum_{k != y} exp(x_k) x_k
    int32_t hit[W];
    int32_t counts[W];  // -1, or 0 where the row is ignored
};

// A gradient: own at y, and elsewhere rivals exp(x_k) + mean w_k + among exp(x_k) (x_k + offset). (For the hard gap 1
// stands for exp(x_k) where x_k is 0, and 0 elsewhere.)
struct Slopes {
    float own[W], rivals[W], mean[W], among[W], offset[W];
};

template <class T>
struct Batch {
    const T* scores;
    T* gradient;
    const int64_t* target;
    const uint8_t* valid;
    const float *sample_weight, *class_weight, *mean_weight, *log_prior;
    Parameter temperature;
    int64_t rows, classes, inner, row_stride, ignore_index;
    Wanted wanted;
    bool by_row;  // a vector holds one class of all rows of a group

    bool is_ignored(int64_t row) const { return valid ? !valid[row] : target[row] == ignore_index; }
    // A row that weighs nothing may hold anything, as an ignored one.
    bool counts(int64_t row) const {
        return !is_ignored(row) && (!sample_weight || sample_weight[row] != 0.0f) &&
               (!class_weight || class_weight[target[row]] != 0.0f);
    }
    int height() const {
        const int64_t bytes = (classes + W) * (int64_t)sizeof(float), fit = GROUP_BYTES / bytes;
        return by_row || fit >= W ? W : fit < 1 ? 1 : (int)fit;
    }
    int64_t groups_of_sample() const { return (inner + W - 1) / W; }
    int64_t groups() const {
        return inner > 1 ? rows / inner * groups_of_sample() : (rows + height() - 1) / height();
    }
    int64_t buffer_size() const { return by_row ? classes * W : (classes + W - 1) / W * W * height(); }
    bool adjusts() const { return log_prior || temperature.each || temperature.number != 1.0; }
    float divisor(int64_t row) const {
        return temperature.each ? temperature.each[row * temperature.step] : (float)temperature.number;
    }
};

struct Group {
    int64_t first;  // row
    int64_t at;     // of its scores
    int64_t out;    // of its gradient
    int count;
};

template <class T>
inline Group group_at(const Batch<T>& batch, int64_t number) {
    if (batch.inner == 1) {
        const int64_t first = number * batch.height(), left = batch.rows - first;
        const int count = left < batch.height() ? (int)left : batch.height();
        return {first, first * batch.row_stride, first * batch.classes, count};
    }
    const int64_t sample = number / batch.groups_of_sample(), across = number % batch.groups_of_sample() * W;
    const int64_t left = batch.inner - across;
    return {sample * batch.inner + across, sample * batch.row_stride + across,
            sample * batch.classes * batch.inner + across, left < W ? (int)left : W};
}

// The lanes of a group from one number for each row.
inline Floats lanes(const float* each, Group group) {
    return group.count == W ? load(each + group.first) : load_some(each + group.first, group.count, 0.0f);
}

inline Floats lanes(const Parameter& parameter, Group group) {
    if (!parameter.each) return all((float)parameter.number);
    return parameter.step ? lanes(parameter.each, group) : all(parameter.each[0]);
}

// Adds up vectors: float32 within a block, float64 from block to block.
struct Sum {
    Floats part{};
    Doubles whole{};
    int count = 0;

    void add(Floats x) {
        part += x;
        if (++count == BLOCK) flush();
    }
    void flush() {
        whole += __builtin_convertvector(part, Doubles);
        part = Floats{};
        count = 0;
    }
    Doubles total() {
        flush();
        return whole;
    }
};

inline Floats finite_reference(Floats top) { return magnitude(top) <= LARGEST ? top : Floats{}; }

// ---- A vector holds classes of one row.

struct TopTwo {
    Floats first = all(-INF), second = all(-INF);

    void see(Floats x) {
        second = larger(second, smaller(first, x));
        first = larger(first, x);
    }
    void of_lanes(float& top, float& next) const {
        float one[W], two[W];
        store(one, first);
        store(two, second);
        int best = 0;
        for (int i = 1; i < W; i++) best = one[i] > one[best] ? i : best;
        top = one[best];
        next = two[best];
        for (int i = 0; i < W; i++) next = i != best && one[i] > next ? one[i] : next;
    }
};

template <class T>
inline TopTwo copy_row(const T* row, int64_t classes, float* to) {
    TopTwo tops;
    int64_t k = 0;
    for (; k + W <= classes; k += W) {
        const Floats x = load(row + k);
        store(to + k, x);
        tops.see(x);
    }
    if (k < classes) {
        const Floats x = load_some(row + k, (int)(classes - k), -INF);
        store(to + k, x);
        tops.see(x);
    }
    return tops;
}

// z / temperature + log prior, as differences to the largest score, so that no digits are lost.
inline TopTwo adjust_row(float* row, int64_t classes, float reference, float divisor, const float* log_prior) {
    TopTwo tops;
    for (int64_t k = 0; k < classes; k += W) {
        Floats x = (load(row + k) - reference) / divisor;
        const int count = classes - k < W ? (int)(classes - k) : W;
        if (log_prior) x += count == W ? load(log_prior + k) : load_some(log_prior + k, count, 0.0f);
        store(row + k, x);
        tops.see(x);
    }
    return tops;
}

inline float mean_of_rivals(const float* row, int64_t classes, int64_t y, const float* weight) {
    const float own = __builtin_fmaxf(row[y], -LARGEST);
    Sum sums;
    int64_t k = 0;
    for (; k + W <= classes; k += W) sums.add((load(row + k) - own) * SHRINK * (weight ? load(weight + k) : all(1.0f)));
    double total = sum(sums.total());
    for (; k < classes; k++) total += (row[k] - own) * SHRINK * (weight ? weight[k] : 1.0f);
    return (float)(total / (SHRINK * (double)classes));
}

template <class T>
inline void read_row(const Batch<T>& batch, const T* scores, int64_t row, float* powers, Told& told, int lane) {
    const int64_t classes = batch.classes, y = batch.target[row];
    TopTwo tops = copy_row(scores, classes, powers);
    float top, next;
    tops.of_lanes(top, next);
    if (batch.adjusts()) {
        const float reference = __builtin_fabsf(top) <= LARGEST ? top : 0.0f;
        tops = adjust_row(powers, classes, reference, batch.divisor(row), batch.log_prior);
        tops.of_lanes(top, next);
    }
    const float own = powers[y];
    top = own == top ? next : top;
    if (batch.wanted.mean) told.mean[lane] = mean_of_rivals(powers, classes, y, batch.mean_weight);
    if (batch.wanted.hit) {
        bool hit = own > top;
        if (own == top) {
            hit = true;
            for (int64_t k = 0; k < y; k++) hit = hit && powers[k] != own;
        }
        told.hit[lane] = hit;
    }
    powers[y] = -INF;
    top = top < -LARGEST ? -LARGEST : top;
    told.own[lane] = own;
    told.top[lane] = top;
    told.lead[lane] = own - top;
    const bool hard = batch.wanted.hard, among = batch.wanted.among;
    Sum total, surprise;
    for (int64_t k = 0; k < classes; k += W) {
        const Floats x = load(powers + k) - top;
        const Floats power = hard ? (x == 0.0f ? all(1.0f) : Floats{}) : exp_negative(x);
        store(powers + k, power);
        total.add(power);
        if (among) surprise.add(power > 0.0f ? power * -x : power);
    }
    told.total[lane] = (float)sum(total.total());
    if (among) told.surprise[lane] = (float)sum(surprise.total());
}

template <class T>
inline void write_row(const Batch<T>& batch, T* out, int64_t y, const float* powers, const Slopes& slopes, int lane) {
    const Floats rivals = all(slopes.rivals[lane]), mean = all(slopes.mean[lane]);
    const Floats among = all(slopes.among[lane]), offset = all(slopes.offset[lane]);
    const Wanted wanted = batch.wanted;
    const float* weight = batch.mean_weight;
    const int64_t classes = batch.classes;
    for (int64_t k = 0; k < classes; k += W) {
        const int count = classes - k < W ? (int)(classes - k) : W;
        const Floats power = load(powers + k);
        Floats slope = power * rivals;
        if (wanted.mean)
            slope += !weight ? mean : mean * (count == W ? load(weight + k) : load_some(weight + k, count, 0.0f));
        if (wanted.among) slope += power > 0.0f ? among * power * (log(power) + offset) : Floats{};
        if (count == W)
            store(out + k, slope);
        else
            store_some(out + k, slope, count);
    }
    store_some(out + y, all(slopes.own[lane]), 1);
}

// ---- A vector holds one class of all rows.

// `count` numbers as float32.
inline const float* in_float32(const float* from, int64_t, float*) { return from; }

template <class T>
inline const float* in_float32(const T* from, int64_t count, float* wide) {
    int64_t i = 0;
    for (; i + W <= count; i += W) store(wide + i, load(from + i));
    if (i < count) store(wide + i, load_some(from + i, (int)(count - i), 0.0f));
    return wide;
}

template <class T>
inline void gather(const Batch<T>& batch, Group group, float* to) {
    const T* from = batch.scores + group.at;
    const int64_t classes = batch.classes;
    if (batch.inner > 1) {
        for (int64_t k = 0; k < classes; k++, from += batch.inner)
            store(to + k * W, group.count == W ? load(from) : load_some(from, group.count, 0.0f));
        return;
    }
    if (group.count < W) std::memset(to, 0, classes * W * sizeof(float));
    float wide[FEW_CLASSES * W];
    if (batch.row_stride == classes && classes <= FEW_CLASSES) {  // all rows at once
        const float* rows = in_float32(from, group.count * classes, wide);
        for (int lane = 0; lane < group.count; lane++)
            for (int64_t k = 0; k < classes; k++) to[k * W + lane] = rows[lane * classes + k];
        return;
    }
    for (int64_t start = 0; start < classes; start += FEW_CLASSES) {
        const int64_t count = classes - start < FEW_CLASSES ? classes - start : FEW_CLASSES;
        for (int lane = 0; lane < group.count; lane++) {
            const float* row = in_float32(from + lane * batch.row_stride + start, count, wide);
            for (int64_t k = 0; k < count; k++) to[(start + k) * W + lane] = row[k];
        }
    }
}

template <class T>
inline void scatter(const Batch<T>& batch, Group group, const float* slopes) {
    T* to = batch.gradient + group.out;
    const int64_t classes = batch.classes;
    if (batch.inner > 1) {
        for (int64_t k = 0; k < classes; k++, to += batch.inner) {
            if (group.count == W)
                store(to, load(slopes + k * W));
            else
                store_some(to, load(slopes + k * W), group.count);
        }
        return;
    }
    // Narrowed by vectors, and then turned.
    T narrow[FEW_CLASSES * W];
    for (int64_t start = 0; start < classes; start += FEW_CLASSES) {
        const int64_t count = classes - start < FEW_CLASSES ? classes - start : FEW_CLASSES;
        for (int64_t k = 0; k < count; k++) store(narrow + k * W, load(slopes + (start + k) * W));
        for (int lane = 0; lane < group.count; lane++)
            for (int64_t k = 0; k < count; k++) to[lane * classes + start + k] = narrow[k * W + lane];
    }
}

// The classes of the targets; -1 for rows that are ignored and lanes without a row.
template <class T>
inline Ints targets_of(const Batch<T>& batch, Group group) {
    Ints targets = Ints{} - 1;
    for (int lane = 0; lane < group.count; lane++) {
        const int64_t y = batch.target[group.first + lane];
        targets[lane] = batch.counts(group.first + lane) ? (int32_t)y : -1;
    }
    return targets;
}

// The scores of a group, a vector for each class; zeros where a row is ignored or there is none.
template <class T>
inline void read_scores(const Batch<T>& batch, Group group, Ints targets, float* scores) {
    const int64_t classes = batch.classes;
    const Ints counts = targets >= 0;
    gather(batch, group, scores);
    if (any(~counts))
        for (int64_t k = 0; k < classes; k++) store(scores + k * W, counts ? load(scores + k * W) : Floats{});
    if (!batch.adjusts()) return;
    Floats top = all(-INF), divisor = all(1.0f);
    for (int64_t k = 0; k < classes; k++) top = larger(load(scores + k * W), top);
    for (int lane = 0; lane < group.count; lane++) divisor[lane] = batch.divisor(group.first + lane);
    const Floats reference = finite_reference(top);
    for (int64_t k = 0; k < classes; k++) {
        const Floats x = (load(scores + k * W) - reference) / divisor;
        store(scores + k * W, x + (batch.log_prior ? batch.log_prior[k] : 0.0f));
    }
}

template <class T>
inline void read_rows(const Batch<T>& batch, Group group, float* powers, Told& told) {
    const int64_t classes = batch.classes;
    const Ints targets = targets_of(batch, group), counts = targets >= 0;
    read_scores(batch, group, targets, powers);
    Floats own{}, top = all(-INF);
    Ints first = Ints{};  // among the rivals with the largest score
    for (int64_t k = 0; k < classes; k++) {
        const Floats x = load(powers + k * W);
        const Ints is_own = targets == (int32_t)k, above = ~is_own & (Ints)(x > top);
        own = is_own ? x : own;
        top = above ? x : top;
        first = above ? Ints{} + (int32_t)k : first;
    }
    if (batch.wanted.mean) {
        const Floats level = own < -LARGEST ? all(-LARGEST) : own;
        Sum sums;
        for (int64_t k = 0; k < classes; k++)
            sums.add((load(powers + k * W) - level) * SHRINK * (batch.mean_weight ? batch.mean_weight[k] : 1.0f));
        store(told.mean, __builtin_convertvector(sums.total() / (SHRINK * (double)classes), Floats));
    }
    if (batch.wanted.hit) {
        const Ints hit = (Ints)(own > top) | ((Ints)(own == top) & (targets < first));
        std::memcpy(told.hit, &hit, sizeof hit);
    }
    top = top < -LARGEST ? all(-LARGEST) : top;
    const bool hard = batch.wanted.hard, among = batch.wanted.among;
    Sum total, surprise;
    for (int64_t k = 0; k < classes; k++) {
        const Floats x = load(powers + k * W) - top;
        Floats power = hard ? (x == 0.0f ? all(1.0f) : Floats{}) : exp_negative(x);
        power = targets == (int32_t)k ? Floats{} : power;
        store(powers + k * W, power);
        total.add(power);
        if (among) surprise.add(power > 0.0f ? power * -x : power);
    }
    store(told.own, own);
    store(told.top, top);
    store(told.lead, own - top);
    store(told.total, __builtin_convertvector(total.total(), Floats));
    store(told.surprise, __builtin_convertvector(surprise.total(), Floats));
    std::memcpy(told.counts, &counts, sizeof counts);
}

template <class T>
inline void write_rows(const Batch<T>& batch, Group group, float* powers, const Slopes& slopes) {
    const Ints targets = targets_of(batch, group);
    const Floats rivals = load(slopes.rivals), mean = load(slopes.mean), own = load(slopes.own);
    const Floats among = load(slopes.among), offset = load(slopes.offset);
    const Wanted wanted = batch.wanted;
    const float* weight = batch.mean_weight;
    for (int64_t k = 0; k < batch.classes; k++) {
        const Floats power = load(powers + k * W);
        Floats slope = power * rivals;
        if (wanted.mean) slope += mean * (weight ? weight[k] : 1.0f);
        if (wanted.among) slope += power > 0.0f ? among * power * (log(power) + offset) : Floats{};
        slope = targets == (int32_t)k ? own : slope;
        store(powers + k * W, slope);
    }
    scatter(batch, group, powers);
}

// ---- Either way.

template <class T>
inline void read(const Batch<T>& batch, Group group, float* powers, Told& told) {
    if (batch.by_row) return read_rows(batch, group, powers, told);
    const int64_t pitch = (batch.classes + W - 1) / W * W;
    told = Told{};
    for (int lane = 0; lane < group.count; lane++) {
        const int64_t row = group.first + lane;
        if (!batch.counts(row)) continue;
        told.counts[lane] = -1;
        read_row(batch, batch.scores + group.at + lane * batch.row_stride, row, powers + lane * pitch, told, lane);
    }
}

template <class T>
inline void write(const Batch<T>& batch, Group group, float* powers, const Slopes& slopes) {
    if (batch.by_row) return write_rows(batch, group, powers, slopes);
    const int64_t pitch = (batch.classes + W - 1) / W * W;
    for (int lane = 0; lane < group.count; lane++) {
        const int64_t row = group.first + lane;
        T* out = batch.gradient + group.out + lane * batch.classes;
        if (batch.counts(row))
            write_row(batch, out, batch.target[row], powers + lane * pitch, slopes, lane);
        else
            std::memset(out, 0, batch.classes * sizeof(T));
    }
}

}  // namespace
