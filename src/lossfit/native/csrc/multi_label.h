// Losses of rows with any number of right classes: the formulas of lossfit.losses.multi_label.
#pragma once

#include "rows.h"

namespace {

enum MultiLabel { ZLPR, BCE, FOCAL_BCE, ASYMMETRIC };

constexpr float LARGEST_SCORE = 1e30f, LARGEST_ZLPR_SCORE = 1e29f;

// The loss of a label, and its derivative by z, the score as far as it speaks against the label.
struct Side {
    Floats value, slope;
};

struct Exponents {
    Floats positive, negative;
    float clip;
};

inline Side logistic_side(Floats z) {
    const Logistic of(z);
    return {of.softplus(), of.sigmoid()};
}

inline Side focal_side(Floats z, Floats gamma) {
    const Logistic of(z);
    const Floats loss = of.softplus(), weight = exp(-gamma * of.softplus_of_minus());
    return {weight * loss, weight * (of.sigmoid() + gamma * of.complement() * loss)};
}

inline Side shifted_side(Floats z, Floats gamma, float clip) {
    const Logistic of(z);
    const Floats p = of.sigmoid(), q = of.complement(), rest = q + clip;
    const Ints inside = p > clip;
    const Floats shifted = inside ? p - clip : all(0.5f), low = shifted < 0.5f ? shifted : all(0.5f);
    const Floats surprise = -(shifted < 0.5f ? log1p(-low) : log(rest));
    const Floats weight = inside ? exp(gamma * log(shifted)) : Floats{};
    return {weight * surprise, weight * p * q * (gamma * surprise / shifted + 1.0f / rest)};
}

// The loss of labels t that are 0 or 1 or between, and its derivative by the score.
ONCE Side label_loss(int64_t kind, Floats s, Floats t, Floats at_one, Floats at_zero, const Exponents& of) {
    const Ints is_one = t == 1.0f, is_hard = is_one | (Ints)(t == 0.0f);
    const Floats one = t * at_one, zero = (1.0f - t) * at_zero;
    if (kind == BCE) {
        const Logistic logistic(s);
        return {one * logistic.softplus_of_minus() + zero * logistic.softplus(),
                zero * logistic.sigmoid() - one * logistic.complement()};
    }
    if (!any(~is_hard)) {
        Side side;
        if (kind == FOCAL_BCE) {
            side = focal_side(is_one ? -s : s, of.negative);
        } else {
            side = {Floats{}, Floats{}};
            if (any(~is_one)) side = of.clip == 0.0f ? focal_side(s, of.negative) : shifted_side(s, of.negative, of.clip);
            if (any(is_one)) {
                const Side positive = focal_side(-s, of.positive);
                side = {is_one ? positive.value : side.value, is_one ? positive.slope : side.slope};
            }
        }
        const Floats weight = is_one ? one : zero;
        return {weight * side.value, is_one ? -weight * side.slope : weight * side.slope};
    }
    const Side right = focal_side(-s, of.positive);
    const Side wrong = kind == FOCAL_BCE || of.clip == 0.0f ? focal_side(s, of.negative)
                                                            : shifted_side(s, of.negative, of.clip);
    return {one * right.value + zero * wrong.value, zero * wrong.slope - one * right.slope};
}

// log(1 + sum exp(terms)) from the sum of exp(terms - top), with top >= 0.
struct AboveZero {
    float value, total;  // what the powers are divided by to be shares of 1 + sum exp(terms)

    AboveZero(float top, double sum) {
        const Floats rest = all((float)sum) + expm1(all(-top));
        value = top + log1p(rest)[0];
        total = 1.0f + rest[0];
    }
};

template <class T>
struct LabelledRow {
    const T* scores;
    const float* labels;
    const uint8_t* known;  // null for all
    int64_t classes;

    int count(int64_t k) const { return classes - k < W ? (int)(classes - k) : W; }
    Floats score(int64_t k, float bound) const {
        Floats s = count(k) == W ? load(scores + k) : load_some(scores + k, count(k), 0.0f);
        s = s > bound ? all(bound) : s;
        return s < -bound ? all(-bound) : s;
    }
    Floats numbers(const float* each, int64_t k) const {
        return count(k) == W ? load(each + k) : load_some(each + k, count(k), 0.0f);
    }
    // Lanes with a label; those without may hold anything.
    Ints has_label(int64_t k) const {
        const int lanes = count(k);
        Ints has = Ints{} - 1;
        if (lanes == W && !known) return has;
        for (int i = 0; i < W; i++) has[i] = i < lanes && (!known || known[k + i]) ? -1 : 0;
        return has;
    }
};

template <class T>
inline void put_slopes(T* out, const LabelledRow<T>& row, int64_t k, Floats slope) {
    if (row.count(k) == W)
        store(out + k, slope);
    else
        store_some(out + k, slope, row.count(k));
}

// The loss of a row; with an `out` its gradient times `scale`. `powers` has room for twice the classes.
template <class T>
inline float zlpr_row(const LabelledRow<T>& row, float* powers, float scale, T* out) {
    Floats against{}, behind{};  // the largest exponents of wrong and of right classes, at least 0
    for (int64_t k = 0; k < row.classes; k += W) {
        const Floats s = row.score(k, LARGEST_ZLPR_SCORE), t = row.numbers(row.labels, k);
        const Ints has = row.has_label(k);
        against = larger(has & (Ints)(t < 1.0f) ? s : Floats{}, against);
        behind = larger(has & (Ints)(t > 0.0f) ? -s : Floats{}, behind);
    }
    float top_wrong = 0.0f, top_right = 0.0f;
    for (int i = 0; i < W; i++) {
        top_wrong = against[i] > top_wrong ? against[i] : top_wrong;
        top_right = behind[i] > top_right ? behind[i] : top_right;
    }
    Sum wrong, right;
    for (int64_t k = 0; k < row.classes; k += W) {
        const Floats s = row.score(k, LARGEST_ZLPR_SCORE), t = row.numbers(row.labels, k);
        const Ints has = row.has_label(k), is_one = t == 1.0f, is_hard = is_one | (Ints)(t == 0.0f);
        Floats of_wrong, of_right;
        if (!any(~is_hard)) {
            const Floats power = exp_negative(is_one ? -s - top_right : s - top_wrong);
            of_wrong = is_one ? Floats{} : power;
            of_right = is_one ? power : Floats{};
        } else {
            of_wrong = t < 1.0f ? (1.0f - t) * exp_negative(t < 1.0f ? s - top_wrong : Floats{}) : Floats{};
            of_right = t > 0.0f ? t * exp_negative(t > 0.0f ? -s - top_right : Floats{}) : Floats{};
        }
        of_wrong = has ? of_wrong : Floats{};
        of_right = has ? of_right : Floats{};
        wrong.add(of_wrong);
        right.add(of_right);
        store(powers + 2 * k, of_wrong);
        store(powers + 2 * k + W, of_right);
    }
    const AboveZero low(top_wrong, sum(wrong.total())), high(top_right, sum(right.total()));
    if (out) {
        const float to_wrong = scale / low.total, to_right = scale / high.total;
        for (int64_t k = 0; k < row.classes; k += W)
            put_slopes(out, row, k, load(powers + 2 * k) * to_wrong - load(powers + 2 * k + W) * to_right);
    }
    return low.value + high.value;
}

struct LabelWeights {
    Floats positive, negative;             // of labels of 1 and of 0
    const float *of_class, *positive_of_class;  // for each class, or null
};

// The mean of the losses of the labels of a row; with an `out` its gradient times `scale`.
template <class T>
inline float binary_row(const LabelledRow<T>& row, int64_t kind, const Exponents& exponents, const LabelWeights& weights,
                        float scale, T* out) {
    int64_t known = row.classes;
    if (row.known) {
        known = 0;
        for (int64_t k = 0; k < row.classes; k++) known += row.known[k];
        known = known ? known : 1;
    }
    const float share = scale / (float)known;
    Sum losses;
    for (int64_t k = 0; k < row.classes; k += W) {
        const Floats s = row.score(k, LARGEST_SCORE), t = row.numbers(row.labels, k);
        Floats at_one = weights.positive, at_zero = weights.negative;
        if (weights.positive_of_class) at_one *= row.numbers(weights.positive_of_class, k);
        if (weights.of_class) {
            const Floats weight = row.numbers(weights.of_class, k);
            at_one *= weight;
            at_zero *= weight;
        }
        const Ints has = row.has_label(k);
        const Side side = label_loss(kind, has ? s : Floats{}, has ? t : Floats{}, at_one, at_zero, exponents);
        losses.add(has ? side.value : Floats{});
        if (out) put_slopes(out, row, k, has ? share * side.slope : Floats{});
    }
    return (float)(sum(losses.total()) / (double)known);
}

}  // namespace
