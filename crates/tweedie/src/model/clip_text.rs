//! `CLIPTextModel`: a causal transformer over tokens.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use tweedie_kernels as kernels;

use super::attention::{attend, merge_heads, split_heads};
use super::config::{ClipTextConfig, Config, HiddenActivation};
use super::layers::{Embedding, LayerNorm, Linear};
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::Pass;
use crate::error::{Error, Result};
use crate::parameters;
use crate::tap::{Site, SiteKind};

/// The end token of old settings files, which stands for the token with the highest id.
const OLD_END: usize = 2;

#[derive(Clone, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
    site: Site,
}
parameters!(SelfAttention { q_proj, k_proj, v_proj, out_proj });

#[derive(Clone, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: HiddenActivation,
    site: Site,
}
parameters!(Mlp { fc1, fc2 });

#[derive(Clone, Debug)]
struct Layer {
    norm1: LayerNorm,
    self_attn: SelfAttention,
    norm2: LayerNorm,
    mlp: Mlp,
    site: Site,
}
parameters!(Layer { "layer_norm1" => norm1, self_attn, "layer_norm2" => norm2, mlp });

/// A text encoder (Radford et al., "Learning transferable visual models from natural language
/// supervision", 2021, section 2.4).
#[derive(Clone, Debug)]
pub struct ClipText {
    config: ClipTextConfig,
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
}
parameters!(ClipText {
    "text_model.embeddings.token_embedding" => token_embedding,
    "text_model.embeddings.position_embedding" => position_embedding,
    "text_model.encoder.layers" => layers,
    "text_model.final_layer_norm" => final_layer_norm,
    text_projection,
});

/// What a text encoder says of some texts.
#[derive(Clone, Debug)]
pub struct EncodedText {
    /// A vector a token, `[batch, tokens, width]`.
    pub hidden: Tensor<3>,
    /// The same before the final norm.
    pub inner: Tensor<3>,
    /// A vector a text, `[batch, width]`: that of its end token after the last layer.
    pub pooled: Tensor<2>,
    /// The pooled vector through the projection, `[batch, projected]`, where there is one.
    pub projected: Option<Tensor<2>>,
}

impl ClipText {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: ClipTextConfig, device: &Device) -> Result<Self> {
        Self::of(config, false, device)
    }

    /// The same with the projection that contrastive training ended in
    /// (`CLIPTextModelWithProjection`).
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn with_projection(config: ClipTextConfig, device: &Device) -> Result<Self> {
        Self::of(config, true, device)
    }

    fn of(config: ClipTextConfig, projects: bool, device: &Device) -> Result<Self> {
        config.validate()?;
        let mut maker = Maker::new("text_encoder", device);
        let width = config.hidden_size;
        let std = 0.02 * config.initializer_factor;
        let layers = (0..config.num_hidden_layers).map(|i| {
            let path = format!("text_model.encoder.layers.{i}");
            Layer::new(&mut maker, &path, &config)
        });
        let layers = layers.collect();
        let norm = LayerNorm::new(width, config.layer_norm_eps, device);
        let text_projection = match (projects, config.projection_dim) {
            (false, _) => None,
            (true, Some(to)) => {
                let std = (width as f64).powf(-0.5) * config.initializer_factor;
                Some(Linear::plain(width, to, device).from_normal(std, device))
            }
            (true, None) => {
                return Err(Error::setting("projection_dim", "is wanted by this class"));
            }
        };
        Ok(Self {
            layers,
            text_projection,
            token_embedding: Embedding::new(config.vocab_size, width, std, device),
            position_embedding: Embedding::new(config.max_position_embeddings, width, std, device),
            final_layer_norm: norm.at(&mut maker, "text_model.final_layer_norm"),
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        self.token_embedding.weight().device()
    }

    /// Encodes texts of equally many tokens each; `hidden` is what comes out of the last layer but
    /// `skip`, through the final norm (0 is the last; `CLIP skip` of other programs counts from 1).
    ///
    /// Padding is part of the text, as in Stable Diffusion: a token sees all tokens before it.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for texts of different lengths, none, or longer than the network reaches;
    /// [`Error::Setting`] for a token outside the vocabulary or a `skip` beyond the layers.
    pub fn encode(&self, ids: &[Vec<i64>], skip: usize) -> Result<EncodedText> {
        self.encode_in(ids, skip, &mut Pass::default())
    }

    /// As [`ClipText::encode`], with taps.
    ///
    /// # Errors
    ///
    /// As [`ClipText::encode`], and what a tap says.
    pub fn encode_in(&self, ids: &[Vec<i64>], skip: usize, pass: &mut Pass) -> Result<EncodedText> {
        let embedded = self.embed(ids)?;
        self.encode_embedded(embedded, ids, skip, pass)
    }

    /// The vectors of tokens as the table has them, `[batch, tokens, width]`, without positions:
    /// what [`ClipText::encode_embedded`] takes, so that learned vectors can stand among them.
    ///
    /// # Errors
    ///
    /// As [`ClipText::encode`].
    pub fn embed(&self, ids: &[Vec<i64>]) -> Result<Tensor<3>> {
        let tokens = self.check(ids, 0)?;
        let flat: Vec<i64> = ids.iter().flatten().copied().collect();
        let embedded = self.token_embedding.forward(&flat);
        Ok(embedded.reshape([ids.len(), tokens, self.config.hidden_size]))
    }

    /// As [`ClipText::encode_in`], from vectors in place of tokens; `ids` still say where each text
    /// ends.
    ///
    /// # Errors
    ///
    /// As [`ClipText::encode_in`]; [`Error::Shape`] for vectors of another shape.
    pub fn encode_embedded(
        &self,
        embedded: Tensor<3>,
        ids: &[Vec<i64>],
        skip: usize,
        pass: &mut Pass,
    ) -> Result<EncodedText> {
        let tokens = self.check(ids, skip)?;
        let (batch, width) = (ids.len(), self.config.hidden_size);
        if embedded.dims() != [batch, tokens, width] {
            return Err(Error::Shape {
                what: "vectors of tokens".into(),
                wanted: vec![batch, tokens, width],
                found: embedded.dims().to_vec(),
            });
        }
        let places: Vec<i64> = (0..tokens as i64).collect();
        let places = self.position_embedding.forward(&places).unsqueeze::<3>();
        let given =
            Given { bias: Some(causal(batch, tokens, &embedded.device())), ..Given::default() };
        let mut hidden = embedded + places;
        let mut kept = None;
        for (i, layer) in self.layers.iter().enumerate() {
            if i + skip == self.layers.len() {
                kept = Some(hidden.clone());
            }
            hidden = layer.forward(hidden, &given, pass)?;
        }
        let last = self.final_layer_norm.run(hidden.clone(), pass)?;
        let ends: Vec<i64> = ids
            .iter()
            .enumerate()
            .map(|(row, ids)| (row * tokens + self.end(ids)) as i64)
            .collect();
        let ends = Tensor::<1, Int>::from_data(TensorData::new(ends, [batch]), &last.device());
        let pooled = last.clone().reshape([batch * tokens, width]).select(0, ends);
        let projected = self.text_projection.as_ref().map(|p| p.vectors(pooled.clone()));
        let (hidden, inner) = match kept {
            // Not announced: the site was, for the last layer.
            Some(inner) => (self.final_layer_norm.forward(inner.clone()), inner),
            None => (last, hidden),
        };
        Ok(EncodedText { hidden, inner, pooled, projected })
    }

    /// Every site, in order.
    pub fn sites(&self) -> Vec<Site> {
        let mut list = Vec::new();
        self.layers.sites(&mut list);
        list.extend(self.final_layer_norm.site().cloned());
        list
    }

    /// Where a text ends: the first end token; the start where there is none.
    fn end(&self, ids: &[i64]) -> usize {
        let end = match self.config.eos_token_id {
            None | Some(OLD_END) => ids.iter().copied().max().unwrap_or(0),
            Some(end) => end as i64,
        };
        ids.iter().position(|&id| id == end).unwrap_or(0)
    }

    fn check(&self, ids: &[Vec<i64>], skip: usize) -> Result<usize> {
        let most = self.config.max_position_embeddings;
        let tokens = ids.first().map_or(0, Vec::len);
        if let Some(bad) = ids.iter().find(|ids| ids.len() != tokens || tokens > most) {
            return Err(Error::Shape {
                what: format!("tokens of a text, at most {most} and equally many each"),
                wanted: vec![tokens.min(most)],
                found: vec![bad.len()],
            });
        }
        if tokens == 0 {
            return Err(Error::Shape {
                what: "texts and tokens to encode, at least one of each".into(),
                wanted: vec![ids.len().max(1), 1],
                found: vec![ids.len(), 0],
            });
        }
        let count = self.config.vocab_size as i64;
        if let Some(bad) = ids.iter().flatten().find(|&&id| id < 0 || id >= count) {
            return Err(Error::setting("token", format!("wanted 0 to {}, found {bad}", count - 1)));
        }
        if skip > self.layers.len() {
            let why = format!("wanted at most the {} layers, found {skip}", self.layers.len());
            return Err(Error::setting("skip", why));
        }
        let dropout = self.config.attention_dropout;
        if dropout > 0.0 && self.token_embedding.weight().is_autodiff() {
            let why =
                format!("training with dropout is not supported, found {dropout}; set it to 0");
            return Err(Error::setting("attention_dropout", why));
        }
        Ok(tokens)
    }
}

/// Minus infinity where a token would see a later one, `[batch, 1, tokens, tokens]`.
fn causal(batch: usize, tokens: usize, device: &Device) -> Tensor<4> {
    let see = |i: usize, j: usize| if j > i { f32::NEG_INFINITY } else { 0.0 };
    let values: Vec<f32> = (0..tokens).flat_map(|i| (0..tokens).map(move |j| see(i, j))).collect();
    Tensor::<4>::from_data(TensorData::new(values, [1, 1, tokens, tokens]), device)
        .expand([batch, 1, tokens, tokens])
}

impl Layer {
    /// The deviations of fresh weights are those of the published class.
    fn new(maker: &mut Maker<'_>, path: &str, config: &ClipTextConfig) -> Self {
        let site = maker.site(path, SiteKind::Block);
        let device = maker.device;
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let factor = config.initializer_factor;
        let wide = (width as f64).powf(-0.5);
        let entry = wide * (2.0 * config.num_hidden_layers as f64).powf(-0.5) * factor;
        let linear = |inputs: usize, outputs: usize, std: f64| {
            Linear::new(inputs, outputs, device).from_normal(std, device)
        };
        let norm = |maker: &mut Maker<'_>, name: &str| {
            let norm = LayerNorm::new(width, config.layer_norm_eps, device);
            norm.at(maker, &format!("{path}.{name}"))
        };
        let norm1 = norm(maker, "layer_norm1");
        let self_attn = SelfAttention {
            q_proj: linear(width, width, entry),
            k_proj: linear(width, width, entry),
            v_proj: linear(width, width, entry),
            out_proj: linear(width, width, wide * factor),
            heads: config.num_attention_heads,
            site: maker.site(&format!("{path}.self_attn"), SiteKind::Attention),
        };
        let norm2 = norm(maker, "layer_norm2");
        let mlp = Mlp {
            fc1: linear(width, inner, (2.0 * width as f64).powf(-0.5) * factor),
            fc2: linear(inner, width, entry),
            activation: config.hidden_act,
            site: maker.site(&format!("{path}.mlp"), SiteKind::Ff),
        };
        Self { norm1, self_attn, norm2, mlp, site }
    }

    fn forward(&self, x: Tensor<3>, given: &Given, pass: &mut Pass) -> Result<Tensor<3>> {
        around(pass, &self.site, x, given, |pass, x, given| {
            let normed = self.norm1.run(x.clone(), pass)?;
            let x = x + self.self_attn.forward(&normed, given.bias.clone(), pass)?;
            let normed = self.norm2.run(x.clone(), pass)?;
            Ok(x + self.mlp.forward(normed, pass)?)
        })
    }
}

impl SelfAttention {
    fn forward(
        &self,
        x: &Tensor<3>,
        bias: Option<Tensor<4>>,
        pass: &mut Pass,
    ) -> Result<Tensor<3>> {
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj]
            .map(|layer| split_heads(layer.forward(x.clone()), self.heads));
        let hidden = attend(pass, &self.site, [q, k, v], bias)?;
        Ok(self.out_proj.forward(merge_heads(hidden)))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>, pass: &mut Pass) -> Result<Tensor<3>> {
        around(pass, &self.site, x, &Given::default(), |_, x, _| {
            let x = self.fc1.forward(x);
            let x = match self.activation {
                HiddenActivation::QuickGelu => kernels::quick_gelu(x),
                HiddenActivation::Gelu => kernels::gelu(x),
                HiddenActivation::GeluNew => kernels::gelu_tanh(x),
                HiddenActivation::Silu => kernels::silu(x),
                HiddenActivation::Relu => activation::relu(x),
            };
            Ok(self.fc2.forward(x))
        })
    }
}

impl Sited for Layer {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
        let rest = [
            self.norm1.site(),
            Some(&self.self_attn.site),
            self.norm2.site(),
            Some(&self.mlp.site),
        ];
        list.extend(rest.into_iter().flatten().cloned());
    }
}
