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
#include <vector>

namespace {

namespace blas = at::native::cpublas;
using at::BFloat16;
using at::Tensor;
using Vec = at::vec::Vectorized<float>;

constexpr int64_t PANEL = 64;  // columns of one product

// How many columns one product computes. Rows of 512 floats in a panel of their own take three
// quarters of the time of the same rows in the whole matrix, where they share cache lines.
template <class T>
int64_t panel(int64_t columns) {
  return std::is_same_v<T, float> && columns % PANEL ? columns : PANEL;
}

bool has_bfloat16() { return blas::could_pack(at::kBFloat16); }

// A weight [in, out] as the products want it, [panels, in, columns]; rows in pairs for bfloat16.
Tensor pack(const Tensor& weight) {
  const auto rows = weight.size(0), columns = weight.size(1);
  if (weight.scalar_type() == at::kFloat) {
    const auto width = panel<float>(columns);
    return weight.view({rows, columns / width, width}).transpose(0, 1).contiguous();
  }
  const auto from = weight.contiguous();
  auto to = at::empty({columns / PANEL, rows, PANEL}, weight.options());
  for (int64_t p = 0; p < columns / PANEL; p++)
    blas::pack(rows, PANEL, columns, PANEL, at::kBFloat16, at::kBFloat16,
               from.const_data_ptr<BFloat16>() + p * PANEL,
               to.mutable_data_ptr<BFloat16>() + p * rows * PANEL);
  return to;
}

struct Relu {
  static Vec of(Vec x) { return at::vec::maximum(x, Vec(0.f)); }
};
struct Silu {
  static Vec of(Vec x) { return x / (Vec(1.f) + x.neg().exp_u20()); }
};
struct Tanh {
  static Vec of(Vec x) { return x.tanh(); }
};

// out = activation(in + bias), rows of `columns`, which is a multiple of two vectors.
template <class Activation, class T>
void activate(const float* in, const float* bias, T* out, int64_t rows, int64_t columns,
              int64_t stride) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c += 2 * Vec::size()) {
      const float* x = in + r * columns + c;
      const Vec a = Activation::of(Vec::loadu(x) + Vec::loadu(bias + c));
      const Vec b =
          Activation::of(Vec::loadu(x + Vec::size()) + Vec::loadu(bias + c + Vec::size()));
      if constexpr (std::is_same_v<T, float>) {
        a.store(out + r * stride + c);
        b.store(out + r * stride + c + Vec::size());
      } else {
        at::vec::convert_from_float<T>(a, b).store(out + r * stride + c);
      }
    }
}

template <class T, class Activation>
void roll_as(const Tensor& state, const Tensor& acts, const std::vector<Tensor>& weights,
             const std::vector<Tensor>& biases, const Tensor& mean, const Tensor& inverse_std,
             double clamp, const Tensor& carry, const Tensor& predicted, Tensor& future,
             int64_t block) {
  constexpr bool vnni = !std::is_same_v<T, float>;
  const int64_t candidates = acts.size(0), horizon = acts.size(1), num_acts = acts.size(2);
  const int64_t num_state = state.size(1), num_in = num_state + num_acts;
  const int64_t num_motion = future.size(2) - num_state, num_predicted = predicted.size(0);
  int64_t widest = 0;
  for (const auto& b : biases) widest = std::max(widest, b.size(0));
  const int64_t in_width = weights[0].size(1);
  widest = std::max(widest, in_width);

  const auto type = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
  Tensor a = at::zeros({block, widest}, type), b = at::empty({block, widest}, type);
  Tensor products = at::empty({block, widest}, at::kFloat), raw = at::empty({block, num_in});
  T *x = a.mutable_data_ptr<T>(), *y = b.mutable_data_ptr<T>();
  float *sums = products.mutable_data_ptr<float>(), *now = raw.mutable_data_ptr<float>();
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
      int64_t width = in_width;
      for (size_t l = 0; l < weights.size(); l++) {
        const int64_t out = biases[l].size(0), step = panel<T>(out);
        const T* weight = weights[l].const_data_ptr<T>();
        const bool last = l + 1 == weights.size();
        for (int64_t c = 0; c < out; c += step) {
          float* into = last ? sums + c : sums;
          blas::brgemm(rows, step, width, width, step, last ? out : step, false, x,
                       weight + c * width, into, vnni);
          if (!last)
            activate<Activation, T>(sums, biases[l].const_data_ptr<float>() + c, y + c, rows,
                                    step, out);
        }
        if (!last) std::swap(x, y);
        width = out;
      }
      const float* shift = biases.back().const_data_ptr<float>();
      for (int64_t r = 0; r < rows; r++) {
        const float* change = sums + r * width;
        float* row = now + r * num_in;
        float* said = future.mutable_data_ptr<float>() +
                      ((first + r) * horizon + t) * (num_motion + num_state);
        for (int64_t p = 0; p < num_motion; p++) said[p] = change[p] + shift[p];
        float* next = said + num_motion;
        std::fill(next, next + num_state, 0.f);
        for (const auto& e : entries) next[e.to] += e.by * row[e.from];
        for (int64_t p = 0; p < num_predicted; p++)
          next[at_state[p]] += change[num_motion + p] + shift[num_motion + p];
        std::copy_n(next, num_state, row);
      }
    }
  }
  if constexpr (vnni) blas::brgemm_release(true);
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
  m.def("pack(Tensor weight) -> Tensor", &pack);
  m.def("roll(Tensor state, Tensor acts, Tensor[] weights, Tensor[] biases, str activation, "
        "Tensor mean, Tensor inverse_std, float clamp, Tensor carry, Tensor predicted, "
        "int num_motion, int block) -> Tensor", &roll);
}
