//! Exact worlds: data whose score, denoiser, density and posterior are known in closed form.
