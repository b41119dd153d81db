"""Names of torch's functions, by what they do to maps."""

from __future__ import annotations

ORDINARY = {
    "conv2d", "batch_norm", "relu", "linear", "flatten", "dropout", "add", "max_pool2d", "avg_pool2d", "pad", "mean",
    "adaptive_avg_pool2d", "operator", "gelu", "silu", "leaky_relu", "relu6", "elu", "layer_norm", "group_norm",
    "opaque",
}  # fmt: skip
"""Functions of ordinary networks: layers, their sums, and what is read of single calls."""

LAYERS = {"conv"}
MIXING = {"roll", "cat", "matmul", "einsum", "unfold", "bmm"}
JOINS = {"cat", "concat", "concatenate"}
NO_MAPS = {"linear", "scaled_dot_product_attention", "multi_head_attention_forward"}
"""Layers of tokens: what they make smaller are no maps."""

CREATING = {
    "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor", "zeros_like", "ones_like", "empty_like",
    "full_like", "rand_like", "randn_like", "new_empty_strided",
}  # fmt: skip
"""Functions that take a tensor for its type alone: what they make was computed of nothing."""

LIKE = {"view_as", "expand_as", "reshape_as", "type_as", "to"}
"""Functions that bring the first tensor into the form of another."""

MAP_LAYERS = {"conv2d", "convolution", "batch_norm", "max_pool2d", "avg_pool2d", "interpolate", "group_norm"}
"""Layers that take maps alone: a value that goes into one is a map, whatever its channels."""

MOVES = {
    "view", "reshape", "permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "flatten", "unflatten",
    "squeeze", "unsqueeze", "contiguous", "clone", "cat", "concat", "concatenate", "stack", "getitem", "unfold",
    "pixel_unshuffle", "chunk", "split", "unbind", "T", "mT", "to", "slice", "alias", "as_strided", "select",
}  # fmt: skip
"""Functions that move pixels and change none."""

PLAIN = MOVES | {
    "add", "sub", "rsub", "mul", "div", "truediv", "true_divide", "neg", "maximum", "minimum", "fmax", "fmin", "max",
    "min", "amax", "amin", "aminmax", "sum", "mean", "nansum", "nanmean", "median", "setitem", "index_select", "index",
    "take", "take_along_dim", "gather", "where", "masked_fill", "masked_select", "narrow", "tensor_split", "hsplit",
    "vsplit", "expand", "expand_as", "repeat", "tile", "repeat_interleave", "matmul", "mm", "bmm", "einsum",
    "tensordot", "lerp", "addcmul", "norm", "vector_norm", "abs", "square", "sqrt", "pow", "topk", "sort", "fft",
    "ifft", "fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfft", "irfft", "fftshift", "ifftshift", "real",
    "imag", "view_as_real", "view_as_complex", "complex", "roll", "flip", "float", "double", "half", "bfloat16",
    "type", "detach", "data", "copy", "index_put", "scatter", "select_scatter", "slice_scatter", "diagonal", "pad",
    "constant_pad_nd", "block_diag", "hstack", "vstack", "dstack", "rot90", "mH", "H", "clamp_min", "index_add",
    "scatter_add", "scatter_reduce", "index_copy", "index_reduce", "index_fill",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "logsumexp",
    "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d", "max_pool1d", "avg_pool1d",
    "max_pool2d_with_indices", "adaptive_max_pool2d_with_indices", "adaptive_max_pool1d", "adaptive_avg_pool1d",
    "quantile", "kthvalue", "cumsum", "dot", "mv", "inner", "kron", "softmax", "exp", "log", "var", "std", "type_as",
}  # fmt: skip
"""Functions without weights of their own, that combine what they are given: what a piece is made of."""

POOLS = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax"}
UPSAMPLING = {"interpolate", "upsample", "upsample_bilinear", "upsample_nearest"}
CONVOLUTIONS = {"conv2d", "convolution"}
SQUASHING = {"sigmoid", "softmax", "hardsigmoid", "tanh", "relu6", "hardtanh"}
ELEMENTWISE = {"add", "sub", "mul", "div", "truediv", "true_divide", "where", "lerp", "addcmul", "maximum", "minimum"}
PRODUCTS = {"matmul", "bmm", "mm", "einsum", "tensordot", "baddbmm"}
PASSES = {
    "interpolate", "view", "reshape", "expand", "expand_as", "unsqueeze", "squeeze", "getitem", "permute", "transpose",
    "flatten", "unflatten", "repeat", "mul", "div", "truediv", "add", "to", "float", "contiguous", "upsample", "chunk",
    "split",
}  # fmt: skip
