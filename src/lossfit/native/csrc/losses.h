// The loss of a batch with its gradient, the gap alone, and the gradient of the gap.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "exact.h"
#include "links.h"
#include "multi_label.h"

namespace {

constexpr int64_t SCORES_A_THREAD = 1 << 14;  // fewer are not worth another thread
constexpr int64_t STACK_FLOATS = 1 << 13;
constexpr int64_t HUGE_PAGE = 1 << 21;

// A fresh buffer of many pages costs more in page faults than its numbers: ask for large ones.
inline void ask_for_huge_pages(void* start, int64_t bytes) {
#if defined(__linux__)
    const uintptr_t first = ((uintptr_t)start + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    const uintptr_t last = ((uintptr_t)start + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (bytes >= 4 * HUGE_PAGE && last > first) madvise((void*)first, last - first, MADV_HUGEPAGE);
#endif
}

template <class T>
struct Work {
    const Request& request;
    Batch<T> batch;
    double scale;      // of every row's weight in the gradient
    double mean_weight_sum;
    double* sums;      // of the losses of each group
    bool out_of_memory = false;

    explicit Work(const Request& r)
        : request(r),
          batch{(const T*)r.scores,
                (T*)r.gradient,
                (const int64_t*)r.target,
                r.valid,
                r.sample_weight,
                r.class_weight,
                r.mean_weight,
                r.log_prior,
                r.temperature,
                r.rows,
                r.classes,
                r.inner,
                r.row_stride,
                r.ignore_index,
                {r.hard != 0, r.mean || r.to_mean, r.hit != nullptr, r.among || r.to_among},
                r.inner > 1 || r.classes <= FEW_CLASSES || is_exact(r)} {}

    bool makes_loss() const { return request.operation == LOSS || request.operation == MULTI_LABEL_LOSS; }

    static bool is_exact(const Request& r) {
        return r.operation == LOSS && (r.link == EXACT || r.link == EXACT_LOG);
    }

    float weight_of(int64_t row) const {
        float weight = request.sample_weight ? request.sample_weight[row] : 1.0f;
        if (request.class_weight) weight *= request.class_weight[batch.target[row]];
        return weight;
    }

    bool labels_fit() const {
        const float* labels = (const float*)request.target;
        const int64_t count = batch.rows * batch.classes;
        Ints wrong{};
        int64_t i = 0;
        for (; i + W <= count; i += W) {
            const Floats t = load(labels + i);
            wrong |= ~((Ints)(t >= 0.0f) & (Ints)(t <= 1.0f));
        }
        for (; i < count; i++) wrong |= Ints{} - !(labels[i] >= 0.0f && labels[i] <= 1.0f);
        return !any(wrong);
    }

    // Whether all targets are classes, or labels in [0, 1]; and how much the rows weigh that count.
    bool check(double& mass) const {
        const bool plain = !request.class_weight && !request.sample_weight;
        mass = 0.0;
        int64_t count = 0;
        if (request.operation == MULTI_LABEL_LOSS) {
            if (!request.known && !labels_fit()) return false;
            for (int64_t row = 0; row < batch.rows; row++)
                if (!request.valid || request.valid[row])
                    mass += request.sample_weight ? request.sample_weight[row] : 1.0f;
            return true;
        }
        for (int64_t row = 0; row < batch.rows; row++) {
            if (batch.is_ignored(row)) continue;
            if ((uint64_t)batch.target[row] >= (uint64_t)batch.classes) return false;
            count++;
            if (!plain) mass += weight_of(row);
        }
        if (plain) mass = (double)count;
        return true;
    }

    void loss_of_group(int64_t number, float* buffer) const {
        const Group group = group_at(batch, number);
        if (is_exact(request)) return exact_of_group(number, group, buffer);
        Told told;
        read(batch, group, buffer, told);
        Ints counts;
        std::memcpy(&counts, told.counts, sizeof counts);
        Number numbers[NUMBERS];
        for (int i = 0; i < request.numbers; i++) {
            const Parameter& parameter = request.number[i];
            numbers[i].value = lanes(parameter, group);
            numbers[i].rest = parameter.each ? 1.0f - numbers[i].value : all((float)(1.0 - parameter.number));
        }
        Linked found = link(request.link, load(told.lead) - log_sum(told), numbers, (int)request.numbers);
        Floats of_class = class_weights(group, counts), to_own = found.pull, to_mean{};
        if (batch.wanted.mean) {
            // (1 - eps) w_y l + eps (w l + sum_k w_k (z_y - z_k) / C), with w the mean weight; for cross-entropy alone
            const Floats share = lanes(request.label_smoothing, group);
            const float mean = (float)(mean_weight_sum / (double)batch.classes);
            const Floats of_link = (1.0f - share) * of_class + share * mean;
            found.value = of_link * found.value - share * load(told.mean);
            found.pull *= of_link;
            to_own = found.pull - share * (mean - of_class * (1.0f / (float)batch.classes));
            to_mean = share * (-1.0f / (float)batch.classes);
            of_class = all(1.0f);
        }
        const Floats weight = put_loss(number, group, counts, found.value, of_class);
        if (!batch.gradient) return;
        Slopes slopes{};
        store(slopes.rivals, counts ? weight * found.pull / shares(told) : Floats{});
        store(slopes.own, counts ? -weight * to_own : Floats{});
        store(slopes.mean, counts ? weight * to_mean : Floats{});
        write(batch, group, buffer, slopes);
    }

    void exact_of_group(int64_t number, Group group, float* buffer) const {
        const Ints targets = targets_of(batch, group), counts = targets >= 0;
        const Floats sigma = lanes(request.number[0], group);
        read_scores(batch, group, targets, buffer);
        to_leads(buffer, batch.classes, targets, counts ? sigma : all(1.0f));
        const Win of = win({buffer, batch.classes});
        const Won found = loss_of_win(of, request.link == EXACT_LOG);
        const Floats weight = put_loss(number, group, counts, found.value, class_weights(group, counts));
        if (!batch.gradient) return;
        const Floats scale = counts ? weight * found.slope / sigma : Floats{};
        Floats to_sigma = push_back(buffer, batch.classes, targets, of, scale);
        scatter(batch, group, buffer);
        if (!request.to_number) return;
        if (batch.adjusts()) to_sigma *= lanes(batch.temperature, group);
        store_some(request.to_number + group.first, counts ? to_sigma : Floats{}, group.count);
    }

    Floats class_weights(Group group, Ints counts) const {
        Floats weights = all(1.0f);
        if (request.class_weight)
            for (int lane = 0; lane < group.count; lane++)
                weights[lane] = counts[lane] ? request.class_weight[batch.target[group.first + lane]] : 0.0f;
        return weights;
    }

    // The losses of a group on their way to the result. Returns what their gradient by the scores is multiplied by.
    Floats put_loss(int64_t number, Group group, Ints counts, Floats value, Floats weight) const {
        if (request.sample_weight) weight *= lanes(request.sample_weight, group);
        value = counts ? value * weight : Floats{};
        if (request.reduction != NONE)
            sums[number] = sum(__builtin_convertvector(value, Doubles));
        else
            store_some(request.loss + group.first, value, group.count);
        if (request.upstream_rows) weight *= lanes(request.upstream_rows, group);
        if (batch.adjusts()) weight /= lanes(batch.temperature, group);
        return weight * (float)scale;
    }

    void gap_of_group(int64_t number, float* buffer) const {
        const Group group = group_at(batch, number);
        Told told;
        read(batch, group, buffer, told);
        Ints counts;
        std::memcpy(&counts, told.counts, sizeof counts);
        const Floats of_rivals = log_sum(told), among = of_rivals + load(told.surprise) / shares(told);
        if (request.operation == GAP) {
            put(request.own, group, counts, load(told.own));
            put(request.top, group, counts, load(told.top));
            put(request.log_sum, group, counts, of_rivals);
            put(request.mean, group, counts, load(told.mean));
            put(request.among, group, counts, among);
            if (request.hit)
                for (int lane = 0; lane < group.count; lane++)
                    request.hit[group.first + lane] = counts[lane] && told.hit[lane];
            return;
        }
        const auto upstream = [&](const float* each) { return each ? (counts ? lanes(each, group) : Floats{}) : Floats{}; };
        const Floats to_among = upstream(request.to_among) / shares(told);
        Slopes slopes;
        store(slopes.own, upstream(request.to_own));
        store(slopes.rivals, upstream(request.to_log_sum) / shares(told));
        store(slopes.mean, upstream(request.to_mean) * (1.0f / (float)batch.classes));
        store(slopes.among, -to_among);
        store(slopes.offset, among - of_rivals);
        write(batch, group, buffer, slopes);
    }

    // log(sum_{k != y} exp(z_k - top)); where there is no rival, that of the smallest number.
    Floats log_sum(const Told& told) const {
        const Floats total = load(told.total);
        return batch.wanted.hard ? Floats{} : log(total < TINY ? all(TINY) : total);
    }

    // What the powers are divided by to be the shares of the rivals.
    static Floats shares(const Told& told) {
        const Floats total = load(told.total);
        return total < 1.0f ? all(1.0f) : total;
    }

    // Rows of several labels, which are weighed by their own weights alone. The numbers of the request are the exponents
    // for labels of 1 and of 0, the shift, and the weights of labels of 1 and of 0.
    void labelled_group(int64_t number, float* buffer) const {
        const Group group = group_at(batch, number);
        Floats parameters[5];
        for (int i = 0; i < request.numbers; i++) parameters[i] = lanes(request.number[i], group);
        double total = 0.0;
        for (int lane = 0; lane < group.count; lane++) {
            const int64_t row = group.first + lane, at = row * batch.classes;
            T* out = batch.gradient ? batch.gradient + at : nullptr;
            const float weight = request.sample_weight ? request.sample_weight[row] : 1.0f;
            float value = 0.0f;
            if ((request.valid && !request.valid[row]) || weight == 0.0f) {
                if (out) std::memset(out, 0, batch.classes * sizeof(T));
            } else {
                const LabelledRow<T> labelled{batch.scores + row * batch.row_stride, (const float*)request.target + at,
                                              request.known ? request.known + at : nullptr, batch.classes};
                float to_row = weight * (float)scale;
                if (request.upstream_rows) to_row *= request.upstream_rows[row];
                if (request.link == ZLPR) {
                    value = zlpr_row(labelled, buffer, to_row, out);
                } else {
                    const auto in_row = [&](int i) { return all(parameters[i][lane]); };
                    const Exponents exponents{in_row(0), in_row(1), parameters[2][lane]};
                    const LabelWeights weights{in_row(3), in_row(4), request.class_weight, request.positive_weight};
                    value = binary_row(labelled, request.link, exponents, weights, to_row, out);
                }
                value *= weight;
            }
            if (request.reduction == NONE)
                request.loss[row] = value;
            else
                total += value;
        }
        if (request.reduction != NONE) sums[number] = total;
    }

    static void put(float* to, Group group, Ints counts, Floats x) {
        if (!to) return;
        store_some(to + group.first, counts ? x : Floats{}, group.count);
    }

    int64_t buffer_size() const {
        return request.operation == MULTI_LABEL_LOSS ? (batch.classes + W) * 2 : batch.buffer_size();
    }

    static void range(int64_t begin, int64_t end, void* context) {
        Work& work = *(Work*)context;
        float few[STACK_FLOATS];
        const int64_t size = work.buffer_size();
        float* buffer = size <= STACK_FLOATS ? few : (float*)std::malloc(size * sizeof(float));
        if (!buffer) {
            __atomic_store_n(&work.out_of_memory, true, __ATOMIC_RELAXED);
            return;
        }
        for (int64_t number = begin; number < end; number++) {
            if (work.request.operation == LOSS)
                work.loss_of_group(number, buffer);
            else if (work.request.operation == MULTI_LABEL_LOSS)
                work.labelled_group(number, buffer);
            else
                work.gap_of_group(number, buffer);
        }
        if (buffer != few) std::free(buffer);
    }

    // `parallel_for` is null where there is no thread pool.
    Status run(ParallelFor parallel_for) {
        double mass;
        if (!check(mass)) return OUT_OF_RANGE;
        const int64_t groups = batch.groups();
        double few[64];
        sums = few;
        if (makes_loss()) {
            double divisor = 1.0;
            if (request.reduction == MEAN) divisor = request.divisor != 0.0 ? request.divisor : mass != 0.0 ? mass : 1.0;
            scale = request.upstream / divisor;
            batch.wanted.mean = request.operation == LOSS && (request.label_smoothing.each || request.label_smoothing.number != 0.0);
            batch.mean_weight = request.class_weight;
            if (batch.wanted.mean) batch.class_weight = nullptr;  // the mean over all classes has them in it
            mean_weight_sum = (double)batch.classes;
            if (request.class_weight) {
                mean_weight_sum = 0.0;
                for (int64_t k = 0; k < batch.classes; k++) mean_weight_sum += request.class_weight[k];
            }
            if (request.reduction != NONE && groups > 64) {
                sums = (double*)std::malloc(groups * sizeof(double));
                if (!sums) return OUT_OF_MEMORY;
            }
        }
        if (batch.gradient) ask_for_huge_pages(batch.gradient, batch.rows * batch.classes * (int64_t)sizeof(T));
        const int64_t each = batch.height() * batch.classes;
        const int64_t grain = each >= SCORES_A_THREAD ? 1 : SCORES_A_THREAD / each;
        if (parallel_for && groups > grain)
            parallel_for(0, groups, grain, range, this);
        else
            range(0, groups, this);
        if (makes_loss() && request.reduction != NONE) {
            double total = 0.0;
            for (int64_t i = 0; i < groups; i++) total += sums[i];
            if (request.reduction == MEAN)
                total /= request.divisor != 0.0 ? request.divisor : mass != 0.0 ? mass : 1.0;
            *request.loss = (float)total;
            if (sums != few) std::free(sums);
        }
        return out_of_memory ? OUT_OF_MEMORY : DONE;
    }
};

}  // namespace
