//! candle as a peer of speed.py: `peer-candle MODEL image|text` answers `input FILE`, `embed BATCH` and
//! `run BATCH PASSES` on standard input with one JSON line each. RAYON_NUM_THREADS says how many threads work.
#![forbid(unsafe_code)]

use candle_core::{D, DType, Device, IndexOp, Result, Tensor, bail};
use candle_nn::ops::{layer_norm, softmax_last_dim};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::BufRead;
use std::time::Instant;

struct Tower {
    config: Value,
    image: bool,
    tensors: HashMap<String, Tensor>,
    words: Vec<[u8; 4]>,
    /// The input of one batch size.
    input: Option<(usize, Tensor)>,
}

fn size(config: &Value, path: &str) -> Result<usize> {
    match config.pointer(path).and_then(Value::as_u64) {
        Some(size) => Ok(size as usize),
        None => bail!("config.json has no {path}"),
    }
}

impl Tower {
    fn new(folder: &str, image: bool) -> Result<Self> {
        let config = serde_json::from_slice(&std::fs::read(format!("{folder}/config.json"))?)
            .map_err(candle_core::Error::wrap)?;
        let all = candle_core::safetensors::load(format!("{folder}/model.safetensors"), &Device::Cpu)?;
        let tensors = all.into_iter().filter(|(name, _)| name.starts_with("visual.") == image).collect();
        Ok(Self { config, image, tensors, words: Vec::new(), input: None })
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor),
            None => bail!("no tensor {name}"),
        }
    }

    fn linear(&self, x: &Tensor, weight: &str, bias: &str) -> Result<Tensor> {
        // One product of all rows: batched products over a broadcast weight are slower.
        let (b, n, k) = x.dims3()?;
        let weight = self.get(weight)?;
        x.reshape((b * n, k))?.matmul(&weight.t()?)?.broadcast_add(self.get(bias)?)?.reshape((b, n, weight.dim(0)?))
    }

    fn norm(&self, x: &Tensor, name: &str, epsilon: f64) -> Result<Tensor> {
        let (gamma, beta) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        layer_norm(&x.contiguous()?, gamma, beta, epsilon as f32)
    }

    fn activation(&self, x: &Tensor, kind: &str) -> Result<Tensor> {
        match kind {
            "gelu_erf" => x.gelu_erf(),
            "gelu_tanh" => x.gelu(),
            "quick_gelu" => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            other => bail!("activation {other}"),
        }
    }

    /// x: [batch, tokens, width].
    fn blocks(&self, mut x: Tensor, config: &Value, prefix: &str, mask: Option<&Tensor>) -> Result<Tensor> {
        let (heads, layers) = (size(config, "/heads")?, size(config, "/layers")?);
        let epsilon = config["epsilon"].as_f64().unwrap_or(1e-5);
        let activation = config["activation"].as_str().unwrap_or("");
        let (batch, tokens, width) = x.dims3()?;
        let head = width / heads;
        for i in 0..layers {
            let name = |part: &str| format!("{prefix}.{i}.{part}");
            let normed = self.norm(&x, &name("ln_1"), epsilon)?;
            let qkv = self.linear(&normed, &name("attn.in_proj_weight"), &name("attn.in_proj_bias"))?;
            let qkv = qkv.reshape((batch, tokens, 3, heads, head))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
            let scores = ((qkv.i(0)? * (head as f64).powf(-0.5))?.matmul(&qkv.i(1)?.t()?))?;
            let scores = match mask {
                Some(mask) => scores.broadcast_add(mask)?,
                None => scores,
            };
            let out = softmax_last_dim(&scores)?.matmul(&qkv.i(2)?)?;
            let out = out.transpose(1, 2)?.contiguous()?.reshape((batch, tokens, width))?;
            x = (x + self.linear(&out, &name("attn.out_proj.weight"), &name("attn.out_proj.bias"))?)?;
            let normed = self.norm(&x, &name("ln_2"), epsilon)?;
            let hidden = self.linear(&normed, &name("mlp.c_fc.weight"), &name("mlp.c_fc.bias"))?;
            let hidden = self.activation(&hidden, activation)?;
            x = (x + self.linear(&hidden, &name("mlp.c_proj.weight"), &name("mlp.c_proj.bias"))?)?;
        }
        Ok(x)
    }

    fn image(&self, pixels: &Tensor) -> Result<Tensor> {
        let config = &self.config["image"];
        let weight = self.get("visual.conv1.weight")?;
        let x =
            pixels.conv2d(weight, 0, size(config, "/patch")?, 1, 1)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let x = match self.tensors.get("visual.conv1.bias") {
            Some(bias) => x.broadcast_add(bias)?,
            None => x,
        };
        let class = self.get("visual.class_embedding")?.reshape((1, 1, ()))?;
        let x = Tensor::cat(&[class.broadcast_as((x.dim(0)?, 1, x.dim(2)?))?.contiguous()?, x], 1)?;
        let x = x.broadcast_add(&self.get("visual.positional_embedding")?.unsqueeze(0)?)?;
        let x = self.blocks(x, &config["transformer"], "visual.transformer.resblocks", None)?;
        let mean = x.narrow(1, 1, x.dim(1)? - 1)?.mean(1)?;
        let epsilon = config["transformer"]["epsilon"].as_f64().unwrap_or(1e-5);
        self.norm(&mean, "visual.ln_post", epsilon)?.matmul(self.get("visual.proj")?)
    }

    fn text(&self, ids: &Tensor) -> Result<Tensor> {
        let config = &self.config["text"];
        let (batch, length) = ids.dims2()?;
        let words = self.get("token_embedding.weight")?.index_select(&ids.flatten_all()?, 0)?;
        let positions = self.get("positional_embedding")?.unsqueeze(0)?;
        let x = words.reshape((batch, length, ()))?.broadcast_add(&positions)?;
        let mask = config["causal"] == true;
        let mask = mask.then(|| {
            let mask = (0..length * length).map(|i| if i % length > i / length { f32::NEG_INFINITY } else { 0.0 });
            Tensor::from_iter(mask, &Device::Cpu)?.reshape((1, 1, length, length))
        });
        let x = self.blocks(x, &config["transformer"], "transformer.resblocks", mask.transpose()?.as_ref())?;
        let pooled = if config["pooling"] == "last" {
            x.i((.., length - 1))?
        } else {
            let at = ids.argmax(D::Minus1)?.to_vec1::<u32>()?;
            let rows: Vec<Tensor> =
                at.iter().enumerate().map(|(i, at)| x.i((i, *at as usize))).collect::<Result<_>>()?;
            Tensor::stack(&rows, 0)?
        };
        let epsilon = config["transformer"]["epsilon"].as_f64().unwrap_or(1e-5);
        self.norm(&pooled, "ln_final", epsilon)?.matmul(self.get("text_projection")?)
    }

    fn prepare(&mut self, batch: usize) -> Result<()> {
        if self.input.as_ref().is_some_and(|(prepared, _)| *prepared == batch) {
            return Ok(());
        }
        let words = |length: usize| self.words.iter().cycle().take(batch * length);
        let tensor = if self.image {
            let (height, width) = (size(&self.config, "/image/height")?, size(&self.config, "/image/width")?);
            let pixels = words(3 * height * width).map(|word| f32::from_le_bytes(*word));
            Tensor::from_iter(pixels, &Device::Cpu)?.reshape((batch, 3, height, width))?
        } else {
            let length = size(&self.config, "/text/context")?;
            let ids = words(length).map(|word| u32::from_le_bytes(*word));
            Tensor::from_iter(ids, &Device::Cpu)?.reshape((batch, length))?
        };
        self.input = Some((batch, tensor));
        Ok(())
    }

    fn forward(&mut self, batch: usize) -> Result<Tensor> {
        self.prepare(batch)?;
        let (_, input) = self.input.as_ref().expect("prepared");
        if self.image { self.image(input) } else { self.text(input) }
    }

    fn answer(&mut self, request: &str) -> Result<Value> {
        let words: Vec<&str> = request.split(' ').collect();
        let number = |text: &str| text.parse::<usize>().map_err(candle_core::Error::wrap);
        match words[..] {
            ["input", path] => {
                self.words = std::fs::read(path)?.as_chunks::<4>().0.to_vec();
                self.input = None;
                Ok(json!({}))
            }
            ["embed", batch] => {
                let output = self.forward(number(batch)?)?.to_dtype(DType::F32)?.flatten_all()?;
                Ok(json!({ "embeddings": output.to_vec1::<f32>()? }))
            }
            ["run", batch, passes] => {
                let batch = number(batch)?;
                let mut seconds = Vec::new();
                for _ in 0..number(passes)? {
                    let started = Instant::now();
                    self.forward(batch)?;
                    seconds.push(started.elapsed().as_secs_f64());
                }
                Ok(json!({ "seconds": seconds }))
            }
            _ => bail!("'{request}' is none of: input FILE, embed BATCH, run BATCH PASSES"),
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut tower = Tower::new(&arguments[1], arguments[2] == "image")?;
    for line in std::io::stdin().lock().lines() {
        let answer = tower.answer(&line?).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        println!("{answer}");
    }
    Ok(())
}
