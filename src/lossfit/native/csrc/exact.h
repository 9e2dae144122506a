// The probability that the target wins under Gaussian noise: the scheme of lossfit.gaps.gaussian, a row in each lane.
#pragma once

#include "rows.h"

namespace {

constexpr float OUT_OF_SIGHT = 1e4f, FAR_AHEAD = 1e6f, WON = 24.0f, DROP = 20.0f;
constexpr float LOG_SQRT_2PI = 0.918938533f, INVERSE_SQRT_2PI = 0.398942280f;
constexpr int MOST_NODES = 32, PROBES = 5;
constexpr int64_t CLASSES_A_BLOCK = 256;

inline int node_count(int64_t classes) { return classes <= 1000 ? 24 : MOST_NODES; }

// The normal distribution at u, by Mills' ratio (1 - Phi(y)) / phi(y) of y = |u|.
struct Normal {
    Ints positive;
    Floats y, mills, density;

    explicit Normal(Floats u) {
        positive = u > 0.0f;
        y = magnitude(u);
        const Floats inverse = 1.0f / (y + 4.0f), t = 1.0f - 8.0f * inverse;
        // In pairs, which wait less for each other than one term for the next.
        const Floats t2 = t * t, t4 = t2 * t2;
        const Floats low = (1.89321903f + t * -1.52377026f) + t2 * (0.970410825f + t * -0.467554597f);
        const Floats middle = (0.151383357f + t * -0.018822703f) + t2 * (-0.00870392288f + t * 0.00390674108f);
        mills = inverse * (low + t4 * (middle + t4 * (0.000318879369f + t * -0.000387390962f)));
        // The square of the upper digits is exact, and the rest of the exponent is small.
        const Floats upper = (Floats)((Bits)y & 0xfffff000u);
        const Floats x = -0.5f * upper * upper;
        const Power power = power_of_e(x, -0.5f * (y - upper) * (y + upper));
        density = x < -87.0f ? Floats{} : INVERSE_SQRT_2PI * (Floats)((Bits)power.mantissa + ((Bits)power.exponent << 23));
    }
    // 1 - Phi(y).
    Floats tail() const { return density * mills; }
    // phi(u) / Phi(u).
    Floats hazard() const { return (positive ? density : all(1.0f)) / (positive ? 1.0f - tail() : mills); }
    // log Phi(u).
    Floats log_cdf() const {
        const Floats low = log(mills * INVERSE_SQRT_2PI) - 0.5f * y * y;
        return positive ? log1p(positive ? -tail() : Floats{}) : low;
    }
};

inline Floats hazard(Floats u) { return Normal(u).hazard(); }

inline Floats between(Floats x, Floats low, Floats high) { return smaller(larger(x, low), high); }

// Bounds on the root of a decreasing function, by bisection.
template <class F>
inline void root(F function, Floats& low, Floats& high) {
    for (int i = 0; i < 10; i++) {
        const Floats middle = 0.5f * (low + high);
        const Ints positive = function(middle) > 0.0f;
        low = positive ? middle : low;
        high = positive ? high : middle;
    }
}

// Leads (z_y - z_k) / sigma, class by class, with the target's own out of sight.
struct Leads {
    const float* of;
    int64_t classes;

    Floats at(int64_t k) const { return load(of + k * W); }
};

// S, S' and S'' at x.
struct HazardSums {
    Floats s, ds, dds;
};

ONCE HazardSums hazard_sums(const Leads& leads, Floats x) {
    Sum s, ds, dds;
    for (int64_t k = 0; k < leads.classes; k++) {
        const Floats u = x + leads.at(k), h = hazard(u), uh = u + h;
        s.add(h);
        ds.add(h * uh);
        dds.add(h * (uh * (uh + h) - 1.0f));
    }
    return {__builtin_convertvector(s.total(), Floats), -__builtin_convertvector(ds.total(), Floats),
            __builtin_convertvector(dds.total(), Floats)};
}

// A and S at several x: sums over the classes of log Phi and of the hazard.
template <bool SLOPES>
ONCE void sums_at(const Leads& leads, const Floats* x, int count, Floats* a, Floats* s) {
    Doubles logs[MOST_NODES], slopes[MOST_NODES];
    for (int n = 0; n < count; n++) logs[n] = slopes[n] = Doubles{};
    for (int64_t start = 0; start < leads.classes; start += CLASSES_A_BLOCK) {
        const int64_t end = start + CLASSES_A_BLOCK < leads.classes ? start + CLASSES_A_BLOCK : leads.classes;
        for (int n = 0; n < count; n++) {
            Floats log_part{}, slope_part{};
            for (int64_t k = start; k < end; k += 4) {
                // One logarithm for four classes: of the product of Mills' ratios where u < 0, and of the product of
                // all 1 - tail elsewhere, kept as what is lost from 1.
                Floats lost{}, square{}, factor = all(1.0f);
                Ints below{};
                const int64_t last = k + 4 < end ? k + 4 : end;
                for (int64_t j = k; j < last; j++) {
                    const Normal normal(x[n] + leads.at(j));
                    const Floats tail = normal.tail();
                    lost += normal.positive ? tail * (1.0f - lost) : Floats{};
                    factor *= normal.positive ? all(1.0f) : INVERSE_SQRT_2PI * normal.mills;
                    square += normal.positive ? Floats{} : normal.y * normal.y;
                    below |= ~normal.positive;
                    if (SLOPES)
                        slope_part += (normal.positive ? normal.density : all(1.0f)) /
                                  (normal.positive ? 1.0f - tail : normal.mills);
                }
                const Ints near = lost < 0.29f;
                Floats value = log1p_near(near ? -lost : Floats{});
                if (any(~near)) value = near ? value : log(1.0f - lost);
                if (any(below)) value += log(factor) - 0.5f * square;
                log_part += value;
            }
            logs[n] += __builtin_convertvector(log_part, Doubles);
            slopes[n] += __builtin_convertvector(slope_part, Doubles);
        }
    }
    for (int n = 0; n < count; n++) {
        a[n] = __builtin_convertvector(logs[n], Floats);
        s[n] = __builtin_convertvector(slopes[n], Floats);
    }
}

inline Floats not_tiny(Floats x) { return x < TINY ? all(TINY) : x; }

// The logarithm of the smaller-looking of P and Q, and what its gradient needs: nodes and their weights.
struct Win {
    Ints complement;  // whether it is that of Q
    Floats log_share;
    int nodes;
    Floats place[MOST_NODES], push[MOST_NODES];
};

// log(Phi S e^A) or log(phi e^A) at several x.
inline void log_integrand(const Leads& leads, Ints of_q, const Floats* x, int count, Floats* logs, Floats* slopes) {
    if (any(of_q))
        sums_at<true>(leads, x, count, logs, slopes);
    else
        sums_at<false>(leads, x, count, logs, slopes);
    for (int n = 0; n < count; n++) {
        Floats found = logs[n] - (0.5f * x[n] * x[n] + LOG_SQRT_2PI);
        if (any(of_q)) found = of_q ? logs[n] + Normal(x[n]).log_cdf() + log(not_tiny(slopes[n])) : found;
        logs[n] = found;
    }
}

struct Located {
    Floats centre, left, right;
};

// The modes of the integrands, by safeguarded Newton steps, and bounds on their widths.
ONCE Located locate(const Leads& leads, Ints of_q, Floats least, Floats rivals) {
    const Floats some = (float)(leads.classes - 1) - Floats{}, ceiling = 14.0f - smaller(least, Floats{});
    const float wide = 1.15f * 6.32455532f;  // sqrt(2 DROP)
    Floats low{}, high{}, x{}, q{};
    if (any(~of_q)) {
        // As if there were one rival, as many as matter, or all of them, each as strong as the strongest.
        Floats below{}, above = ceiling;
        root([&](Floats v) { return hazard(v + least) - v; }, below, above);
        low = below;
        below = Floats{}, above = ceiling;
        root([&](Floats v) { return rivals * hazard(v + least) - v; }, below, above);
        x = 0.5f * (below + above);
        below = Floats{}, above = ceiling;
        root([&](Floats v) { return some * hazard(v + least) - v; }, below, above);
        high = above;
    }
    if (any(of_q)) {
        Floats below = -magnitude(least) - 1.0f, above = all(14.0f);
        root([&](Floats v) { return hazard(v) + (rivals - 1.0f) * hazard(v + least) - v - least; }, below, above);
        q = 0.5f * (below + above);
        x = of_q ? q : x;
    }
    for (int i = 0; i < 4; i++) {
        const HazardSums sums = hazard_sums(leads, x);
        const Floats s = not_tiny(sums.s), inverse = 1.0f / not_tiny(x);
        // For P, where S(x) = x.
        const Floats newton = x + (sums.s - x) / (1.0f - sums.ds);
        const Floats log_newton = x + log(s * inverse) / (inverse - sums.ds / s);
        const Ints below = sums.s > x;
        low = below ? larger(low, larger(x, newton)) : low;
        high = below ? high : smaller(high, x);
        const Floats up = 0.5f * (newton + smaller(larger(newton, log_newton), high));
        const Floats of_p = below ? smaller(larger(up, low), high) : smaller(larger(log_newton, low), high);
        // For Q, where the logarithm of Phi S e^A is stationary.
        Floats next = of_p;
        if (any(of_q)) {
            const Floats h = hazard(x), ratio = sums.ds / s;
            const Floats first = h + s + ratio;
            Floats second = -h * (x + h) + sums.ds + sums.dds / s - ratio * ratio;
            second = second > -1.0f ? all(-1.0f) : second;
            next = of_q ? x - between(first / second, all(-1.5f), all(1.5f)) : next;
        }
        x = next;
    }
    Floats left = all(wide), right = all(wide);
    if (any(~of_q)) {
        const HazardSums sums = hazard_sums(leads, x);
        const Floats s = not_tiny(sums.s), narrow = 2.0f * DROP / (1.0f - sums.ds);
        Floats root_of{};
        for (int i = 0; i < W; i++) root_of[i] = __builtin_sqrtf(narrow[i]);
        left = of_q ? left : smaller(1.84f * root_of, left);
        const Floats rate = larger(-sums.ds / s, all(1e-6f));
        Floats below{}, above = all(9.0f);
        root([&](Floats y) { return 1.3f * DROP - (x * y + 0.5f * y * y + sums.s * expm1(-rate * y) / rate); }, below,
             above);
        right = of_q ? right : above;
    }
    return {x, left, right};
}

// How far on either side of the centre the integrand has dropped by DROP nats.
ONCE Floats width(Floats bound, Floats centre_value, const Floats* values) {
    constexpr float fractions[PROBES + 2] = {0.0f, 0.2f, 0.35f, 0.5f, 0.65f, 0.8f, 1.0f};
    Floats result = bound, before_log{};
    Ints open = Ints{} - 1;
    for (int i = 0; i < PROBES; i++) {
        const Floats drop = larger(centre_value - values[i], all(1e-30f)), log_drop = log(drop);
        const Ints here = open & (Ints)(drop >= DROP);
        // Pulled back to where the drop is 1.15 of what is needed, by interpolating its logarithm, and a quarter step.
        const Floats part = (3.13549422f - before_log) / larger(log_drop - before_log, all(1e-30f)) + 0.25f;
        const Floats pulled = fractions[i] + (fractions[i + 1] - fractions[i]) * smaller(part, all(1.0f));
        result = here ? bound * (i ? pulled : all(fractions[1])) : result;
        open &= ~here;
        before_log = log_drop;
    }
    return result;
}

ONCE Win win(const Leads& leads) {
    Floats least = all(INF);
    for (int64_t k = 0; k < leads.classes; k++) least = smaller(leads.at(k), least);
    Sum matter;  // the number of rivals that matter, as many equal ones would
    for (int64_t k = 0; k < leads.classes; k++) matter.add(exp_negative(-2.0f * (leads.at(k) - least)));
    const Floats rivals = __builtin_convertvector(matter.total(), Floats);
    Floats half = all(-10.0f), above = all(14.0f);
    root([&](Floats u) { return (rivals - 1.0f) * hazard(u) - u; }, half, above);
    Win win;
    win.nodes = node_count(leads.classes);
    win.complement = half < least;
    const Ints closed = least > WON;
    const Located at = locate(leads, win.complement, least, rivals);
    constexpr float fractions[PROBES] = {0.2f, 0.35f, 0.5f, 0.65f, 0.8f};
    Floats probes[2 * PROBES + 1], values[2 * PROBES + 1], unused[2 * PROBES + 1];
    probes[2 * PROBES] = at.centre;
    for (int i = 0; i < PROBES; i++) {
        probes[i] = at.centre - at.left * fractions[i];
        probes[PROBES + i] = at.centre + at.right * fractions[i];
    }
    log_integrand(leads, win.complement, probes, 2 * PROBES + 1, values, unused);
    const Floats left = width(at.left, values[2 * PROBES], values);
    const Floats right = width(at.right, values[2 * PROBES], values + PROBES);
    Floats stretch = log(right / left);
    stretch = magnitude(stretch) < 1e-3f ? all(1e-3f) : stretch;
    const Floats scale = -left / expm1(-stretch), log_scale = log(scale * stretch);
    Floats logs[MOST_NODES], slopes[MOST_NODES], log_weight[MOST_NODES];
    const float log_step = win.nodes == MOST_NODES ? -2.74084002f : -2.44234704f;  // log(2 / (nodes - 1))
    for (int n = 0; n < win.nodes; n++) {
        const float t = -1.0f + 2.0f * (float)n / (float)(win.nodes - 1);
        win.place[n] = at.centre + scale * expm1(stretch * t);
        log_weight[n] = log_scale + stretch * t + log_step;
    }
    log_integrand(leads, win.complement, win.place, win.nodes, logs, slopes);
    Floats top = all(-INF), total{};
    for (int n = 0; n < win.nodes; n++) {
        logs[n] += log_weight[n];
        top = larger(logs[n], top);
    }
    for (int n = 0; n < win.nodes; n++) total += exp_negative(logs[n] - top);
    win.log_share = closed ? all(-INF) : top + log(total);
    for (int n = 0; n < win.nodes; n++) {
        const Floats share = exp_negative(logs[n] - top) / total;
        const Floats of_q = -share * hazard(win.place[n]) / not_tiny(slopes[n]);
        win.push[n] = closed ? Floats{} : win.complement ? of_q : share;
        win.place[n] = closed ? Floats{} : win.place[n];
    }
    return win;
}

// The loss of the lanes, and its derivative by log_share.
struct Won {
    Floats value, slope;
};

inline Won loss_of_win(const Win& win, bool log_form) {
    const Floats share = exp(win.log_share);
    if (log_form) {
        const Floats rest = 1.0f - share;
        return {win.complement ? -log1p(-share) : -win.log_share, win.complement ? share / rest : all(-1.0f)};
    }
    return {win.complement ? share : -expm1(win.log_share), win.complement ? share : -share};
}

// Scores become leads, in place.
inline void to_leads(float* scores, int64_t classes, Ints targets, Floats sigma) {
    Floats own{};
    for (int64_t k = 0; k < classes; k++) own = targets == (int32_t)k ? load(scores + k * W) : own;
    own = own < -0.25f * LARGEST ? all(-0.25f * LARGEST) : own;
    for (int64_t k = 0; k < classes; k++) {
        Floats score = load(scores + k * W);
        score = score < -0.25f * LARGEST ? all(-0.25f * LARGEST) : score;
        Floats lead = (own - score) / sigma;
        lead = lead < -FAR_AHEAD ? all(-FAR_AHEAD) : lead;
        lead = lead > OUT_OF_SIGHT ? all(OUT_OF_SIGHT) : lead;
        store(scores + k * W, targets == (int32_t)k ? all(OUT_OF_SIGHT) : lead);
    }
}

// Leads become the gradient by the scores, in place; returns that by sigma.
ONCE Floats push_back(float* leads, int64_t classes, Ints targets, const Win& win, Floats scale) {
    Sum pushed, by_sigma;
    for (int64_t k = 0; k < classes; k++) {
        const Floats lead = load(leads + k * W);
        Floats push{};
        for (int n = 0; n < win.nodes; n++) push += win.push[n] * hazard(win.place[n] + lead);
        push *= scale;
        push = targets == (int32_t)k ? Floats{} : push;
        pushed.add(push);
        by_sigma.add(push * lead);
        store(leads + k * W, -push);
    }
    const Floats own = __builtin_convertvector(pushed.total(), Floats);
    for (int64_t k = 0; k < classes; k++)
        store(leads + k * W, targets == (int32_t)k ? own : load(leads + k * W));
    return -__builtin_convertvector(by_sigma.total(), Floats);
}

}  // namespace
