// Rolls a learned model out: a block of candidates at a time through every step of the horizon, so
// that activations never leave the cache. See native.py for the layout of the arguments.

#include <ATen/ATen.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/native/CPUBlas.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

namespace {

namespace blas = at::native::cpublas;
using at::BFloat16;
using at::Tensor;
using Vec = at::vec::Vectorized<float>;

constexpr int64_t LANES = Vec::size();
constexpr int64_t ROWS = LANES == 8 ? 6 : 12;  // of a tile: with two vectors each, all registers
constexpr int64_t PANEL = 64;                  // columns of one bfloat16 product

int64_t lanes() { return LANES; }
bool has_bfloat16() { return blas::could_pack(at::kBFloat16); }


int64_t padded(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

// A weight [in, out] as its products want it: panels of columns, [in, columns] each, so that rows
// do not share cache lines; for bfloat16 with the rows in pairs.
Tensor pack(const Tensor& weight) {
  const auto rows = weight.size(0), columns = weight.size(1);
  const bool whole = weight.scalar_type() == at::kFloat;
  const auto from = weight.contiguous();
  auto to = at::empty({columns, rows}, weight.options());
  for (int64_t c = 0, step; c < columns; c += step) {
    step = whole ? std::min(2 * LANES, columns - c) : PANEL;
    if (whole)
      at::from_blob(to.mutable_data_ptr<float>() + c * rows, {rows, step})
          .copy_(from.narrow(1, c, step));
    else
      blas::pack(rows, step, columns, step, at::kBFloat16, at::kBFloat16,
                 from.const_data_ptr<BFloat16>() + c, to.mutable_data_ptr<BFloat16>() + c * rows);
  }
  return to;
}

struct Identity {
  static Vec of(Vec x) { return x; }
};
struct Relu {
  static Vec of(Vec x) { return at::vec::maximum(x, Vec(0.f)); }
};
// Within 5e-7 of tanh: x times a quotient of polynomials in x², the best fit to [-7.75, 7.75].
struct Tanh {
  static Vec of(Vec x) {
    using at::vec::fmadd;
    const Vec z = at::vec::clamp(x, Vec(-7.75f), Vec(7.75f)), u = z * z;
    Vec above = fmadd(u, Vec(-6.32448919e-9f), Vec(7.25224236e-6f));
    Vec below = fmadd(u, Vec(1.98187277e-4f), Vec(2.28934137e-2f));
    above = fmadd(u, fmadd(u, fmadd(u, above, Vec(2.70700976e-3f)), Vec(0.12721982f)), Vec(1.f));
    below = fmadd(u, fmadd(u, below, Vec(0.460550487f)), Vec(1.f));
    return z * above / below;
  }
};
struct Silu {
  static Vec of(Vec x) {
    const Vec half = x * Vec(0.5f);
    return at::vec::fmadd(half, Tanh::of(half), half);
  }
};

// ROWS rows × V vectors of activation(x weight + bias), summed up in registers.
template <class Activation, int V>
void tile(const float* x, int64_t in, const float* weight, const float* bias, float* y,
          int64_t out) {
  Vec sums[ROWS][V];
  for (int64_t r = 0; r < ROWS; r++)
    for (int v = 0; v < V; v++) sums[r][v] = Vec::loadu(bias + v * LANES);
  for (int64_t i = 0; i < in; i++, weight += V * LANES) {
    Vec w[V];
    for (int v = 0; v < V; v++) w[v] = Vec::loadu(weight + v * LANES);
#pragma GCC unroll 12
    for (int64_t r = 0; r < ROWS; r++)
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) sums[r][v] = at::vec::fmadd(Vec(x[r * in + i]), w[v], sums[r][v]);
  }
  for (int64_t r = 0; r < ROWS; r++)
    for (int v = 0; v < V; v++) Activation::of(sums[r][v]).store(y + r * out + v * LANES);
}

// y = activation(x weight + bias), in float32.
template <class Activation>
void layer(const float* x, const Tensor& weight, const Tensor& bias, float* y, float*,
           int64_t rows) {
  const int64_t in = weight.size(1), out = weight.size(0);
  const float *w = weight.const_data_ptr<float>(), *b = bias.const_data_ptr<float>();
  for (int64_t c = 0; c < out; c += 2 * LANES)
    for (int64_t r = 0; r < rows; r += ROWS)
      (out - c > LANES ? tile<Activation, 2> : tile<Activation, 1>)(
          x + r * in, in, w + c * in, b + c, y + r * out + c, out);
}

// The same with products in bfloat16, and in it what the next layer takes.
template <class Activation, class Out>
void layer(const BFloat16* x, const Tensor& weight, const Tensor& bias, Out* y, float* sums,
           int64_t rows) {
  const int64_t in = weight.size(1), out = weight.size(0);
  for (int64_t c = 0; c < out; c += PANEL) {
    blas::brgemm(rows, PANEL, in, in, PANEL, PANEL, false, x,
                 weight.const_data_ptr<BFloat16>() + c * in, sums, true);
    const float* b = bias.const_data_ptr<float>() + c;
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < PANEL; i += 2 * LANES) {
        const float* sum = sums + r * PANEL + i;
        const Vec low = Activation::of(Vec::loadu(sum) + Vec::loadu(b + i));
        const Vec high = Activation::of(Vec::loadu(sum + LANES) + Vec::loadu(b + i + LANES));
        Out* to = y + r * out + c + i;
        if constexpr (std::is_same_v<Out, float>) {
          low.store(to);
          high.store(to + LANES);
        } else {
          at::vec::convert_from_float<Out>(low, high).store(to);
        }
      }
  }
}

template <class T, class Activation>
void roll_as(const Tensor& state, const Tensor& acts, const std::vector<Tensor>& weights,
             const std::vector<Tensor>& biases, const Tensor& mean, const Tensor& inverse_std,
             double clamp, const Tensor& carry, const Tensor& predicted, Tensor& future,
             int64_t block) {
  const int64_t candidates = acts.size(0), horizon = acts.size(1), num_acts = acts.size(2);
  const int64_t num_state = state.size(1), num_in = num_state + num_acts;
  const int64_t num_motion = future.size(2) - num_state, num_predicted = predicted.size(0);
  const int64_t in_width = weights[0].size(1), out_width = weights.back().size(0);
  int64_t widest = in_width;
  for (const auto& w : weights) widest = std::max(widest, w.size(0));
  if (std::is_same_v<T, float>) block = padded(block, ROWS);

  const auto type = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
  Tensor a = at::zeros({block, widest}, type), b = at::zeros({block, widest}, type);
  Tensor products = at::empty({block, PANEL}, at::kFloat), raw = at::empty({block, num_in});
  Tensor changes = at::empty({block, out_width}, at::kFloat);
  T *x = a.mutable_data_ptr<T>(), *y = b.mutable_data_ptr<T>();
  float *sums = products.mutable_data_ptr<float>(), *now = raw.mutable_data_ptr<float>();
  float* change_of = changes.mutable_data_ptr<float>();
  const float *mu = mean.const_data_ptr<float>(), *scale = inverse_std.const_data_ptr<float>();
  const float *act = acts.const_data_ptr<float>(), *map = carry.const_data_ptr<float>();
  const int64_t* at_state = predicted.const_data_ptr<int64_t>();
  const float bound = static_cast<float>(clamp);

  // The known map is mostly the identity: only its other entries are worth a product.
  struct Entry { int64_t from, to; float by; };
  std::vector<Entry> entries;
  for (int64_t i = 0; i < num_in; i++)
    for (int64_t s = 0; s < num_state; s++)
      if (map[i * num_state + s] != 0.f) entries.push_back({i, s, map[i * num_state + s]});

  for (int64_t first = 0; first < candidates; first += block) {
    const int64_t rows = std::min(block, candidates - first);
    for (int64_t r = 0; r < rows; r++)
      std::copy_n(state.const_data_ptr<float>() + (first + r) * num_state, num_state,
                  now + r * num_in);
    for (int64_t t = 0; t < horizon; t++) {
      for (int64_t r = 0; r < rows; r++) {
        float* row = now + r * num_in;
        std::copy_n(act + ((first + r) * horizon + t) * num_acts, num_acts, row + num_state);
        for (int64_t i = 0; i < num_in; i++)  // a NaN stays one
          x[r * in_width + i] = T(std::min(std::max((row[i] - mu[i]) * scale[i], -bound), bound));
        std::fill(x + r * in_width + num_in, x + (r + 1) * in_width, T(0.f));
      }
      const size_t last = weights.size() - 1;
      for (size_t l = 0; l < last; l++, std::swap(x, y))
        layer<Activation>(x, weights[l], biases[l], y, sums, rows);
      layer<Identity>(x, weights[last], biases[last], change_of, sums, rows);
      for (int64_t r = 0; r < rows; r++) {
        const float* change = change_of + r * out_width;
        float* row = now + r * num_in;
        float* said = future.mutable_data_ptr<float>() +
                      ((first + r) * horizon + t) * (num_motion + num_state);
        for (int64_t p = 0; p < num_motion; p++) said[p] = change[p];
        float* next = said + num_motion;
        std::fill(next, next + num_state, 0.f);
        for (const auto& e : entries) next[e.to] += e.by * row[e.from];
        for (int64_t p = 0; p < num_predicted; p++)
          next[at_state[p]] += change[num_motion + p];
        std::copy_n(next, num_state, row);
      }
    }
  }
  if constexpr (!std::is_same_v<T, float>) blas::brgemm_release(true);
}

Tensor roll(const Tensor& state, const Tensor& acts, const std::vector<Tensor>& weights,
            const std::vector<Tensor>& biases, const std::string& activation, const Tensor& mean,
            const Tensor& inverse_std, double clamp, const Tensor& carry, const Tensor& predicted,
            int64_t num_motion, int64_t block) {
  auto future = at::empty({acts.size(0), acts.size(1), num_motion + state.size(1)}, at::kFloat);
  const auto run = [&](auto type, auto kind) {
    roll_as<decltype(type), decltype(kind)>(state, acts, weights, biases, mean, inverse_std, clamp,
                                            carry, predicted, future, block);
  };
  const auto typed = [&](auto kind) {
    if (weights[0].scalar_type() == at::kFloat) run(float(), kind);
    else run(BFloat16(), kind);
  };
  if (activation == "relu") typed(Relu());
  else if (activation == "silu") typed(Silu());
  else if (activation == "tanh") typed(Tanh());
  else TORCH_CHECK(false, "unknown activation ", activation);
  return future;
}

}  // namespace

TORCH_LIBRARY(mbmrl, m) {
  m.def("has_bfloat16() -> bool", &has_bfloat16);
  m.def("lanes() -> int", &lanes);
  m.def("pack(Tensor weight) -> Tensor", &pack);
  m.def("roll(Tensor state, Tensor acts, Tensor[] weights, Tensor[] biases, str activation, "
        "Tensor mean, Tensor inverse_std, float clamp, Tensor carry, Tensor predicted, "
        "int num_motion, int block) -> Tensor", &roll);
}
